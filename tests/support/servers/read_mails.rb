# Reads mails with the library mail. Arguments: a folder of files, and the names of headers. Prints JSON.
require "base64"
require "json"
require "mail"

folder, *names = ARGV

def mailboxes(field)
  field ? field.addrs.map { |each| [each.display_name || "", each.address] } : []
end

def part(each)
  {
    name: each.filename, type: each.mime_type, parameters: each.content_type_parameters || {},
    cid: each.has_content_id? ? each.cid : nil, base64: Base64.strict_encode64(each.body.decoded)
  }
end

mails = Dir[File.join(folder, "*")].sort.map do |path|
  mail = Mail.new(File.binread(path))
  leaves = mail.multipart? ? mail.all_parts.reject(&:multipart?) : []
  {
    subject: mail.subject, from: mailboxes(mail[:from]), to: mailboxes(mail[:to]), cc: mailboxes(mail[:cc]),
    reply_to: mailboxes(mail[:reply_to]),
    text: (mail.multipart? ? mail.text_part : mail)&.decoded, html: mail.html_part&.decoded,
    headers: names.to_h { |name| [name, mail[name]&.decoded] },
    attachments: leaves.reject { |each| [mail.text_part, mail.html_part].include?(each) }.map { |each| part(each) }
  }
end
puts JSON.generate(mails)
