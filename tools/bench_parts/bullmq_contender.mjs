// BullMQ with a pool of nodemailer connections; run as: bullmq_contender.mjs push|work REDIS_PORT SMTP_PORT CONNECTIONS tls|plain COUNT
import { Queue, Worker } from "bullmq";
import nodemailer from "nodemailer";

const [what, redisPort, smtpPort, connections, tls, count] = process.argv.slice(2);
const connection = { host: "127.0.0.1", port: Number(redisPort), maxRetriesPerRequest: null };

if (what === "push") {
  const queue = new Queue("mails", { connection });
  for (let start = 0; start < Number(count); start += 1000) {
    const jobs = [];
    for (let number = start; number < Math.min(start + 1000, Number(count)); number += 1) {
      const data = { email: `user${number}@example.com`, username: `user ${number}`, token: `token${number}` };
      jobs.push({ name: "mail", data, opts: { removeOnComplete: true } });
    }
    await queue.addBulk(jobs);
  }
  await queue.close();
} else {
  const transport = nodemailer.createTransport({
    host: "127.0.0.1",
    port: Number(smtpPort),
    secure: tls === "tls",
    ignoreTLS: tls !== "tls",
    tls: { rejectUnauthorized: false },
    pool: true,
    maxConnections: Number(connections),
    maxMessages: 1000,
  });
  let left = Number(count);
  const worker = new Worker(
    "mails",
    async (job) => {
      const { email, username, token } = job.data;
      const link = `http://localhost:8081/confirm?token=${token}`;
      await transport.sendMail({
        from: "no-reply@example.com",
        to: email,
        subject: "Welcome",
        text: `Hello ${username},\n\nplease confirm your address: ${link}\n`,
        html: `<p>Hello ${username},</p><p><a href='${link}'>Confirm</a></p>`,
      });
      left -= 1;
      if (left === 0) {
        setTimeout(async () => {
          await worker.close();
          transport.close();
          process.exit(0);
        }, 100);
      }
    },
    { connection, concurrency: Number(connections) },
  );
}
