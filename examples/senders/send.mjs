// Send one postback from Node.js 18 or newer, with nothing but Node.js: node send.mjs ACCOUNT EVENT.json [ID]
// The broker is POSTBACKS_BROKER_URL: redis://user:password@host:6379/0, or rediss:// for TLS.
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import net from "node:net";
import tls from "node:tls";
import { pathToFileURL } from "node:url";

const TIMEOUT_MS = 3000;

export async function sendPostback(account, event, id = randomUUID()) {
  const body = JSON.stringify([[account, event], {}, {}]);
  const message = JSON.stringify({
    body: Buffer.from(body, "utf8").toString("base64"),
    "content-encoding": "utf-8",
    "content-type": "application/json",
    headers: { lang: "js", task: "postbacks.send_postback", id },
    properties: {
      correlation_id: id,
      delivery_mode: 2,
      delivery_info: { exchange: "", routing_key: "postbacks" },
      priority: 0,
      body_encoding: "base64",
      delivery_tag: randomUUID(),
    },
  });
  await push(message);
  return id;
}

// Push a message onto the queue of postbacks; once it returns, the message is accepted.
async function push(message) {
  const text = process.env.POSTBACKS_BROKER_URL ?? "";
  // What is behind a ? may be the number of the database: not read, it would be the wrong one.
  if (!/^rediss?:\/\/[^?]+$/.test(text)) {
    throw new Error("POSTBACKS_BROKER_URL is no redis:// or rediss:// URL without options behind a ?");
  }
  const url = new URL(text);
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const address = { host, port: Number(url.port || 6379) };
  const socket =
    url.protocol === "rediss:"
      ? tls.connect({ ...address, servername: net.isIP(host) ? undefined : host })
      : net.connect(address);
  try {
    if (url.password) {
      const login = [url.username, url.password].filter(Boolean).map(decodeURIComponent);
      await command(socket, "AUTH", ...login);
    }
    await command(socket, "SELECT", url.pathname.replace(/^\/|\/$/g, "") || "0");
    await command(socket, "LPUSH", "postbacks", message);
  } finally {
    socket.destroy();
  }
}

// Send one command in Redis's protocol, and read its one line of an answer.
function command(socket, ...words) {
  return new Promise((resolve, reject) => {
    let answer = "";
    const ends = (settle, value) => {
      clearTimeout(timer);
      socket.removeAllListeners("data").removeAllListeners("error").removeAllListeners("close");
      socket.on("error", () => {});
      settle(value);
    };
    const unknown = (why) => ends(reject, new Error(`${why}; whether the broker has the message is not known`));
    const timer = setTimeout(() => unknown(`the broker did not answer to ${words[0]}`), TIMEOUT_MS);
    socket.on("error", (error) => unknown(error.message));
    socket.on("close", () => unknown("the broker closed the connection"));
    socket.on("data", (bytes) => {
      answer += bytes;
      if (!answer.endsWith("\r\n")) return;
      if (answer.startsWith("-")) ends(reject, new Error(`the broker refused: ${answer.slice(1).trim()}`));
      else ends(resolve, answer.trim());
    });
    const parts = words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`);
    socket.write(`*${words.length}\r\n${parts.join("")}`);
  });
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [account, path, id = randomUUID()] = process.argv.slice(2);
  if (!path) {
    console.error("node send.mjs ACCOUNT EVENT.json [ID]; - reads the event from standard input");
    process.exit(2);
  }
  try {
    const event = JSON.parse(readFileSync(path === "-" ? 0 : path, "utf8"));
    console.log(await sendPostback(account, event, id));
  } catch (error) {
    console.error(`not sent: ${error.message}. Send it again with the same id: node send.mjs … ${id}`);
    process.exit(1);
  }
}
