// Google's Agent Development Kit for JavaScript: the events of a RemoteA2AAgent. node adk_js.mjs FOLDER URL

import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [folder, url] = process.argv.slice(2);
const require = createRequire(join(folder, "package.json"));
const { InMemoryRunner, RemoteA2AAgent } = require("@google/adk");
const PLAIN = "hello there,separators,emoji,interim,chunks,data,file,fail,reject,reply,slow".split(",");
const agent = new RemoteA2AAgent({ name: "remote", agentCard: `${url}/` });
const runner = new InMemoryRunner({ agent, appName: "a" });

function shown(event) {
  const found = [];
  for (const part of event.content?.parts ?? []) {
    if (part.text && !part.thought) found.push(part.text);
    else if (part.inlineData) found.push({ file: Buffer.from(part.inlineData.data, "base64").toString("hex") });
  }
  if (event.errorMessage) found.push(event.errorMessage);
  return found;
}

async function say(text, sessionId) {
  const found = [];
  const newMessage = { role: "user", parts: [{ text }] };
  let pieces = []; // a chat shows the pieces of an answer as they come, and not again as a whole
  for await (const event of runner.runAsync({ userId: "u", sessionId, newMessage })) {
    const next = shown(event);
    if (event.partial) pieces.push(...next);
    else if (next.length && next.join("") === pieces.join("")) {
      pieces = [];
      continue;
    }
    found.push(...next);
  }
  return found;
}

const report = {};
const play = async (name, scenario) => {
  const { id } = await runner.sessionService.createSession({ appName: "a", userId: "u" });
  try {
    report[name] = await scenario(id);
  } catch (error) {
    report[name] = { shown: [], raised: `${error.name}: ${error.message}` };
  }
};
for (const text of PLAIN) await play(text.split(" ")[0], async (id) => ({ shown: await say(text, id) }));
await play("ask", async (id) => ({ question: await say("ask", id), shown: await say("Ada", id) }));
writeFileSync(process.env.REPORT, JSON.stringify(report));
process.exit(0);
