// The package smtp-server: keeps each mail in a file, one for each recipient. Arguments: port, folder.
const fs = require("node:fs");
const path = require("node:path");
const { SMTPServer } = require("smtp-server");

const [port, folder] = process.argv.slice(2);
let number = 0;

const server = new SMTPServer({
  authOptional: true,
  disabledCommands: ["STARTTLS"],
  onData(stream, session, callback) {
    const chunks = [];
    stream.on("data", (chunk) => chunks.push(chunk));
    stream.on("end", () => {
      for (const recipient of session.envelope.rcptTo) {
        const name = path.join(folder, String(number++));
        fs.writeFileSync(name, Buffer.concat([Buffer.from(recipient.address + "\n"), ...chunks]));
        fs.renameSync(name, name + ".mail");
      }
      callback();
    });
  },
});
server.listen(Number(port), "127.0.0.1");
process.stdin.on("end", () => process.exit()).resume();
