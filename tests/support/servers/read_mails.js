// Reads mails with the package mailparser. Arguments: a folder of files, and the names of headers. Prints JSON.
const fs = require("node:fs");
const path = require("node:path");
const libmime = require("libmime");
const { simpleParser } = require("mailparser");

const [folder, ...names] = process.argv.slice(2);
const mailboxes = (field) => (field ? field.value.map((each) => [each.name, each.address]) : []);

async function read(file) {
  const mail = await simpleParser(fs.readFileSync(path.join(folder, file)), { keepCidLinks: true });
  // The library unfolds headers that it does not know, and this library of the same author decodes them.
  const raw = new Map(mail.headerLines.map(({ key, line }) => [key, libmime.decodeHeader(line).value]));
  const header = (name) => (raw.has(name) ? libmime.decodeWords(raw.get(name)) : null);
  return {
    subject: mail.subject,
    from: mailboxes(mail.from),
    to: mailboxes(mail.to),
    cc: mailboxes(mail.cc),
    reply_to: mailboxes(mail.replyTo),
    text: mail.text,
    html: mail.html || null,
    headers: Object.fromEntries(names.map((name) => [name, header(name)])),
    attachments: mail.attachments.map((each) => ({
      name: each.filename || null,
      type: each.contentType,
      parameters: each.headers.get("content-type").params,
      cid: each.cid || null,
      base64: each.content.toString("base64"),
    })),
  };
}

Promise.all(fs.readdirSync(folder).sort().map(read)).then((mails) => console.log(JSON.stringify(mails)));
