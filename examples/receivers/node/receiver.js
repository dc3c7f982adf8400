// Receiver of postbacks with Node's standard library alone (Node 18 or newer).
//
//   WEBHOOK_SECRET=whsec_... node receiver.js     receives on http://127.0.0.1:8080/ (PORT; 0 takes a free one)
//   node receiver.js state                        prints the newest of each subscriber, message and pass
//
// What it stores stands in DATA_DIR (receiver-data). Before it stands your web server, which speaks TLS.
//
// Node has no XML parser. A postback's XML is so small a part of XML (elements and text, no attributes, no DTD) that
// the reader below takes that part alone and refuses the rest; there is nothing in it that could be switched on.
'use strict';

const crypto = require('node:crypto');
const fs = require('node:fs');
const { mkdir, open, link, unlink, readFile, rename } = require('node:fs/promises');
const http = require('node:http');
const path = require('node:path');

const DATA_DIR = process.env.DATA_DIR || 'receiver-data';
// A directory whose file names are unique stands for a table here: in your program it is a table of your database,
// with a unique column for webhook-id. Delete what is older than 30 days.
const [TEMPORARY, POSTBACKS, DONE, STATES] = ['temporary', 'postbacks', 'done', 'states']
  .map((name) => path.join(DATA_DIR, name));
const BODY_BYTES_MAX = 2 * 1024 * 1024; // no postback has more than 2 MB
const TOLERANCE_S = 300; // between the time of a signature and now
const DEPTH_MAX = 16; // elements inside of each other; a postback has 3 today
// Tags that name what an event is about. Of two events about the same, the one with the higher sequence is newer.
const SUBJECTS = {
  SUB: ['MOBILE', 'CAMPAIGNID'],
  EMAIL_SUB: ['EMAIL', 'CAMPAIGNID'],
  SMS_MT: ['TRACKINGID'],
  MMS_MT: ['TRACKINGID', 'MMSID'],
  GENERATE_PASS: ['REFERENCEDBY', 'REFERENCEVALUE'],
};

// A request that gets another status than 200.
class Refused extends Error {
  constructor(status, reason) {
    super(reason);
    this.status = status;
  }
}

// -- the request ---------------------------------------------------------------------------------------------------

// Returns the value of a header that is there once, or undefined.
function only(request, name) {
  const values = request.headersDistinct[name] || [];
  return values.length === 1 ? values[0] : undefined;
}

async function readBody(request) {
  const pieces = [];
  let length = 0;
  if (Number(request.headers['content-length']) > BODY_BYTES_MAX) throw new Refused(413, 'the body is too long');
  for await (const piece of request) {
    length += piece.length;
    if (length > BODY_BYTES_MAX) throw new Refused(413, 'the body is too long');
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

// Returns the id of a request that is signed with the key, and recently; the body is as it arrived.
function checkSignature(key, request, body, nowS) {
  const id = only(request, 'webhook-id');
  const timestamp = only(request, 'webhook-timestamp');
  const signatures = only(request, 'webhook-signature');
  if (!id || !timestamp || !signatures) {
    throw new Refused(401, 'webhook-id, webhook-timestamp and webhook-signature must be there once each');
  }
  if (!/^[0-9]{1,12}$/.test(timestamp) || Math.abs(nowS - Number(timestamp)) > TOLERANCE_S) {
    throw new Refused(401, 'webhook-timestamp is not the time of the last 5 minutes');
  }
  if (!/^[\x21-\x7e]{1,255}$/.test(id)) throw new Refused(400, 'webhook-id is no id of a postback');
  const expected = crypto.createHmac('sha256', key).update(`${id}.${timestamp}.`).update(body).digest();
  // Several while the secret is being changed; one that fits is enough.
  const fits = signatures.split(' ').some((word) => {
    const [version, text = ''] = word.split(',');
    const signature = Buffer.from(text, 'base64');
    return version === 'v1' && signature.length === expected.length && crypto.timingSafeEqual(signature, expected);
  });
  if (!fits) throw new Refused(401, 'no signature fits');
  return id;
}

function readSequence(request) {
  const text = only(request, 'postback-sequence');
  if (!/^[0-9]{1,15}$/.test(text || '')) {
    throw new Refused(400, 'Postback-Sequence must be there once, and be a number');
  }
  return Number(text); // exact: it has 13 digits
}

// Returns a document's tags: the text of each, or the lists of what it holds by name.
function parse(body) {
  try {
    return readTags(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch (error) {
    throw new Refused(400, `the body is no postback: ${error.message}`);
  }
}

function readTags(document) {
  if (/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/u.test(document)) {
    throw new Error('it has a character that XML has not');
  }
  const text = document.replace(/\r\n?/g, '\n').replace(/^<\?xml [^?<>]*\?>\s*/, '').trimEnd();
  const token = /<(\/?)([A-Za-z_][\w.-]*)\s*(\/?)>|([^<]+)/y;
  const root = new Map();
  const elements = [{ name: '', children: root, texts: [] }];
  while (token.lastIndex < text.length) {
    if (root.size && elements.length === 1) throw new Error('something follows its root');
    const at = token.lastIndex;
    const found = token.exec(text);
    // A DOCTYPE, an instruction, a comment, an attribute: a postback has none.
    if (!found) throw new Error(`there is no element at ${JSON.stringify(text.slice(at, at + 20))}`);
    const [, isEnd, name, isEmpty, characters] = found;
    const element = elements.at(-1);
    if (characters !== undefined) {
      if (elements.length === 1) throw new Error('it does not begin with an element');
      element.texts.push(unescape(characters));
      continue;
    }
    if (isEnd && (isEmpty || element.name !== name)) throw new Error(`</${name}> ends nothing`);
    if (!isEnd) {
      if (elements.length > DEPTH_MAX) throw new Error('it is nested too deeply');
      elements.push({ name, children: new Map(), texts: [] });
    }
    if (isEnd || isEmpty) {
      const { children, texts } = elements.pop();
      const above = elements.at(-1).children;
      if (!above.has(name)) above.set(name, []);
      above.get(name).push(children.size ? children : texts.join(''));
    }
  }
  if (elements.length > 1) throw new Error(`${elements.at(-1).name} has no end`);
  const [children] = root.get('POSTBACK') || [];
  if (!(children instanceof Map)) throw new Error('its root is not POSTBACK with tags');
  const tags = new Map();
  for (const [name, values] of children) {
    if (values.length > 1) throw new Error('a tag is there twice');
    tags.set(name, values[0]);
  }
  for (const name of ['ORIGIN', 'CODE']) {
    if (typeof tags.get(name) !== 'string') throw new Error('it has no ORIGIN or no CODE');
  }
  return tags; // tags and codes that we do not know are stored as well: they are new ones
}

function unescape(characters) {
  const names = { amp: '&', lt: '<', gt: '>', apos: "'", quot: '"' };
  const entity = /&(?:(amp|lt|gt|apos|quot);|#([0-9]{1,7});|#x([0-9a-fA-F]{1,6});)?/g;
  return characters.replace(entity, (_, name, decimal, hex) => {
    if (name) return names[name];
    const code = decimal ? parseInt(decimal, 10) : parseInt(hex, 16);
    const isCharacter = code === 9 || code === 10 || code === 13 || (code >= 32 && code < 0xd800)
      || (code > 0xdfff && code < 0xfffe) || (code > 0xffff && code < 0x110000);
    if (!isCharacter) throw new Error('it has an entity that XML has not');
    return String.fromCodePoint(code);
  });
}

// -- the store -----------------------------------------------------------------------------------------------------

const hash = (text) => crypto.createHash('sha256').update(text).digest('hex');
let temporaryCount = 0;

async function writeTemporary(text) {
  const name = path.join(TEMPORARY, `${process.pid}-${temporaryCount += 1}`);
  const file = await open(name, 'wx', 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  return name;
}

// Puts a directory's names on the disk.
async function syncDirectory(directory) {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

// Stores a postback unless its id is known, and returns whether it was new. A link is made once, and to a file that is
// complete: of two at once the second finds all of the first. The id may hold any character, so its hash is the name.
async function store(postback) {
  const temporary = await writeTemporary(JSON.stringify(postback));
  let isNew = true;
  try {
    await link(temporary, path.join(POSTBACKS, hash(postback.id)));
  } catch (error) {
    if (error.code !== 'EEXIST') throw error;
    isNew = false;
  } finally {
    await unlink(temporary);
  }
  await syncDirectory(POSTBACKS);
  return isNew;
}

// -- the work, after the answer ------------------------------------------------------------------------------------

let work = Promise.resolve();

// Handles a stored postback once those before it are handled.
function handleLater(name) {
  work = work.then(() => handle(name)).catch((error) => {
    console.error(`not handled, again in a second: ${error}`);
    setTimeout(handleLater, 1000, name);
  });
}

// Your program begins here: it keeps the newest of each subject, and prints the postback. If the process ends in the
// middle, the next one begins with this postback again.
async function handle(name) {
  const { id, sequence, body } = JSON.parse(await readFile(path.join(POSTBACKS, name), 'utf8'));
  const tags = parse(Buffer.from(body));
  const subject = subjectOf(tags);
  let newest = true;
  if (subject !== undefined) {
    const stateName = path.join(STATES, hash(subject));
    const known = fs.existsSync(stateName) ? JSON.parse(await readFile(stateName, 'utf8')) : undefined;
    newest = known === undefined || sequence >= known.sequence;
    if (newest) {
      await rename(await writeTemporary(JSON.stringify({ subject, sequence, code: tags.get('CODE'), id })), stateName);
      await syncDirectory(STATES);
    }
  }
  const plain = (_, value) => (value instanceof Map ? Object.fromEntries(value) : value);
  console.log(JSON.stringify({ id, sequence, newest, tags }, plain));
  await (await open(path.join(DONE, name), 'w', 0o600)).close();
}

// Returns what an event is about; undefined for a message from a person, which is about itself.
function subjectOf(tags) {
  const origin = tags.get('ORIGIN');
  const names = Object.hasOwn(SUBJECTS, origin) ? SUBJECTS[origin] : [];
  let values = names.map((name) => tags.get(name)).filter((value) => typeof value === 'string');
  if (origin === 'MMS_MT') values = values.slice(0, 1); // the message, or where no message is meant its content
  return values.length ? [origin, ...values].join('/') : undefined;
}

function printState() {
  const states = fs.readdirSync(STATES).map((name) => JSON.parse(fs.readFileSync(path.join(STATES, name), 'utf8')));
  states.sort((a, b) => (a.subject < b.subject ? -1 : 1));
  for (const state of states) console.log(JSON.stringify(state));
}

// -- the server ----------------------------------------------------------------------------------------------------

// Checks, stores, answers. The work comes afterwards.
async function receive(key, request, response) {
  if (request.method !== 'POST') throw new Refused(405, 'postbacks are POSTed here');
  const body = await readBody(request);
  const id = checkSignature(key, request, body, Date.now() / 1000);
  const sequence = readSequence(request);
  parse(body);
  if (only(request, 'postback-test') === '1') return answer(response, 200, 'OK');
  const isNew = await store({ id, sequence, body: body.toString() });
  answer(response, 200, 'OK');
  if (isNew) handleLater(hash(id));
  return undefined;
}

// The sender keeps the first 256 bytes of the reason where the status is not 200.
function answer(response, status, reason) {
  if (status === 405) response.setHeader('Allow', 'POST');
  if (!response.req.complete) response.setHeader('Connection', 'close'); // the rest of the body is not read
  const headers = { 'Content-Type': 'text/plain; charset=utf-8', 'Content-Length': Buffer.byteLength(reason) };
  response.writeHead(status, headers).end(reason);
}

function refuse(request, response, error) {
  if (request.destroyed && !request.complete && !(error instanceof Refused)) return; // the sender has gone
  if (error instanceof Refused) return answer(response, error.status, error.message);
  // Not stored, so not 200: it comes again in 5 minutes.
  console.error(`not stored: ${error}`);
  answer(response, 503, 'cannot store it now');
}

function readKey() {
  const secret = process.env.WEBHOOK_SECRET || '';
  const key = secret.startsWith('whsec_') ? Buffer.from(secret.slice(6), 'base64') : Buffer.alloc(0);
  if (!key.length) {
    console.error('Set WEBHOOK_SECRET to the secret of your account: whsec_ and base64.');
    process.exit(1);
  }
  return key;
}

async function main() {
  for (const directory of [TEMPORARY, POSTBACKS, DONE, STATES]) {
    await mkdir(directory, { recursive: true, mode: 0o700 });
  }
  if (process.argv[2] === 'state') return printState();
  const key = readKey();
  for (const name of fs.readdirSync(TEMPORARY)) fs.unlinkSync(path.join(TEMPORARY, name));
  const done = new Set(fs.readdirSync(DONE));
  const left = fs.readdirSync(POSTBACKS).filter((name) => !done.has(name)); // by an earlier process
  const options = {
    headersTimeout: 10_000,
    requestTimeout: 10_000, // a body that has not come by then gets 408
    connectionsCheckingInterval: 1_000,
    keepAliveTimeout: 130_000, // postbacks does not use a connection that has rested for 118 s
  };
  const server = http.createServer(options, (request, response) => {
    receive(key, request, response).catch((error) => refuse(request, response, error));
  });
  server.listen(Number(process.env.PORT || 8080), '127.0.0.1', () => {
    console.log(`listening on http://127.0.0.1:${server.address().port}/`);
    left.forEach(handleLater);
  });
  return undefined;
}

main();
