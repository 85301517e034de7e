#!/usr/bin/env bash
# Haraka offers PIPELINING, and refuses every command that it received before it had answered a message.
#
# Most people expect: a server that offers PIPELINING takes the commands for the next message right behind the end of
# one message (RFC 2920, 3.1), and answers each in its turn. Haraka 3.3.1 did.
# What happens: 3.3.4, a patch release, answers the message with 250, and each command that had arrived by then with
# 503, RSET too. The same commands are taken if they arrive after its answer. EHLO offers PIPELINING as before.
# Why it matters to a mail worker: with several messages in flight on a connection every second one is refused, and
# 503 looks like a fault of the session. Whether a message is refused depends on the time at which it arrives.
#
# Guess written down before running: all of 3.3 refuses them, as a report about "Haraka 3.3" said. 3.3.1 took them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/show.js" <<'JS'
const fs = require("node:fs");
const net = require("node:net");
const path = require("node:path");
const { spawn } = require("node:child_process");

const [folder] = process.argv.slice(2);
const envelope = "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n";
const message = "From: a@example.org\r\nSubject: x\r\n\r\nhello\r\n.\r\n";

function freePort() {
  return new Promise((resolve) => {
    const server = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

async function connected(port) {
  for (let turn = 0; ; turn++) {
    const socket = net.connect(port, "127.0.0.1");
    const isOpen = await new Promise((resolve) => socket.once("connect", () => resolve(true)).once("error", () => resolve(false)));
    if (isOpen) return socket;
    if (turn > 300) throw new Error("Haraka does not listen");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

// Writes each text, and waits after it for so many complete replies; returns the first lines of the last replies.
async function talk(port, steps) {
  const socket = await connected(port);
  let received = "";
  socket.on("data", (octets) => (received += octets)).on("error", () => {});
  const finals = () => received.split("\r\n").filter((line) => /^\d{3} /.test(line));
  const ended = new Promise((resolve) => socket.once("close", resolve));
  let awaited = 1;
  let said = [];
  for (const [text, count] of [["", 0], ...steps]) {
    socket.write(text);
    const before = finals().length;
    awaited = text ? before + count : 1;
    const late = Date.now() + 10000;
    while (finals().length < awaited && Date.now() < late) await new Promise((resolve) => setTimeout(resolve, 10));
    said = finals().slice(before);
  }
  socket.destroy();
  await ended;
  return { said, offers: received.includes("PIPELINING") };
}

async function show(version) {
  const home = path.join(folder, version);
  const modules = path.join(folder, `npm-${version}`, "node_modules");
  fs.cpSync(path.join(modules, "Haraka", "config"), path.join(home, "config"), { recursive: true });
  fs.mkdirSync(path.join(home, "plugins"));
  const port = await freePort();
  fs.writeFileSync(path.join(home, "config", "smtp.ini"), `listen=127.0.0.1:${port}\nnodes=0\n`);
  fs.writeFileSync(path.join(home, "config", "me"), "relay.example.org\n");
  fs.writeFileSync(path.join(home, "config", "plugins"), "keep\n");
  fs.writeFileSync(
    path.join(home, "plugins", "keep.js"),
    "exports.hook_rcpt = (next) => next(OK);\nexports.hook_queue = (next) => next(OK);\n",
  );
  const haraka = spawn("node", [path.join(modules, "Haraka", "haraka.js")], {
    env: { ...process.env, HARAKA: home },
    stdio: "ignore",
  });
  try {
    const hello = ["EHLO c.example.org\r\n", 1];
    const ahead = await talk(port, [hello, [envelope, 3], [`${message}RSET\r\n${envelope}`, 5]]);
    const after = await talk(port, [hello, [envelope, 3], [message, 1], [`RSET\r\n${envelope}`, 4]]);
    console.log(`Haraka ${version} offers PIPELINING: ${ahead.offers}`);
    console.log("  RSET, MAIL, RCPT, DATA in the write that ends a message:", ahead.said.map((line) => line.slice(0, 3)).join(" "));
    console.log("  the same after the answer to that message:", after.said.map((line) => line.slice(0, 3)).join(" "));
    console.log("  last line:", ahead.said.at(-1));
    return [ahead, after].map(({ said, offers }) => `${offers} ${said.map((line) => line.slice(0, 3)).join(" ")}`);
  } finally {
    haraka.kill("SIGKILL");
  }
}

(async () => {
  const old = await show("3.3.1");
  const now = await show("3.3.4");
  const taken = ["true 250 250 250 250 354", "true 250 250 250 354"];
  if (String(old) !== String(taken) || String(now) !== String(["true 250 503 503 503 503", taken[1]])) {
    console.error("this has changed");
    process.exit(1);
  }
})();
JS
for version in 3.3.1 3.3.4; do
  npm install --prefix "$folder/npm-$version" --silent --no-audit --no-fund --ignore-scripts "Haraka@$version" >/dev/null 2>&1
done
node --version
node "$folder/show.js" "$folder"
