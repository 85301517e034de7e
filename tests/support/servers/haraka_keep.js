// A plugin for Haraka: takes every recipient, and keeps each mail in a file, one for each recipient.
const fs = require("node:fs");
const path = require("node:path");

let number = 0;

exports.register = function () {
  process.stdin.on("end", () => process.exit()).resume();
};

exports.hook_rcpt = (next) => next(OK);

exports.hook_queue = function (next, connection) {
  const { rcpt_to: recipients, message_stream: stream } = connection.transaction;
  const chunks = [];
  const { Writable } = require("node:stream");
  const sink = new Writable({
    write(chunk, encoding, callback) {
      chunks.push(chunk);
      callback();
    },
  });
  sink.once("finish", () => {
    for (const recipient of recipients) {
      const name = path.join(process.env.KEPT_IN, String(number++));
      fs.writeFileSync(name, Buffer.concat([Buffer.from(recipient.address + "\n"), ...chunks]));
      fs.renameSync(name, name + ".mail");
    }
    next(OK);
  });
  stream.pipe(sink);
};
