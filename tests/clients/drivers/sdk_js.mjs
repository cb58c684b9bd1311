// @a2a-js/sdk: what its events hold. node sdk_js.mjs FOLDER URL BINDING; npm installed the SDK in FOLDER.

import { randomUUID } from "node:crypto";
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [folder, url, binding] = process.argv.slice(2);
const require = createRequire(join(folder, "package.json"));
const sdk = require("@a2a-js/sdk");
const { ClientFactory, ClientFactoryOptions } = require("@a2a-js/sdk/client");
const PLAIN = "hello there,separators,emoji,interim,chunks,data,file,fail,reject,reply,slow".split(",");
const isV1 = "TaskState" in sdk;
const hex = (bytes) => Buffer.from(bytes).toString("hex");

const part = isV1
  ? ({ content: { $case: kind, value } }) =>
      ({ text: () => value, data: () => ({ data: value }), raw: () => ({ file: hex(value) }) })[kind]()
  : (given) =>
      ({
        text: () => given.text,
        data: () => ({ data: given.data }),
        file: () => ({ file: Buffer.from(given.file.bytes, "base64").toString("hex") }),
      })[given.kind]();
const parts = (of) => (of?.parts ?? []).map(part);
const state = ({ state }) =>
  isV1 ? sdk.TaskState[state].slice("TASK_STATE_".length) : state.replace("-", "_").toUpperCase();

function request(text, taskId, immediately = false) {
  if (isV1)
    return sdk.SendMessageRequest.fromJSON({
      message: { messageId: randomUUID(), role: "ROLE_USER", parts: [{ text }], taskId },
      configuration: { returnImmediately: immediately },
    });
  const message = { kind: "message", messageId: randomUUID(), role: "user", parts: [{ kind: "text", text }], taskId };
  return { message, configuration: { blocking: !immediately } };
}

function normal(given) {
  if (!isV1) return [given.kind, given];
  if (given.payload) return [given.payload.$case, given.payload.value];
  return ["messageId" in given ? "message" : "task", given];
}

class Told {
  shown = [];
  question = [];
  state = "";
  status(status) {
    this.state = state(status);
    const found = parts(status.message);
    if (this.state === "INPUT_REQUIRED") this.question = found;
    else this.shown.push(...found);
  }
  take(given) {
    const [kind, value] = normal(given);
    switch (kind) {
      case "task":
        this.taskId = value.id;
        for (const artifact of value.artifacts ?? []) this.shown.push(...parts(artifact));
        this.status(value.status);
        break;
      case "message":
        this.shown.push(...parts(value));
        break;
      case "statusUpdate":
      case "status-update":
        this.status(value.status);
        break;
      default:
        this.shown.push(...parts(value.artifact));
    }
    return this;
  }
}

async function main() {
  const options = isV1 ? { ...ClientFactoryOptions.default, preferredTransports: [binding] } : undefined;
  const client = await new ClientFactory(options).createFromUrl(url);
  const ways = {
    "": async (text, taskId) => {
      const told = new Told();
      for await (const event of client.sendMessageStream(request(text, taskId))) told.take(event);
      return told;
    },
    "~blocking": async (text, taskId) => new Told().take(await client.sendMessage(request(text, taskId))),
  };
  const report = {};
  const play = async (name, scenario) => {
    try {
      report[name] = await scenario();
    } catch (error) {
      report[name] = { shown: [], raised: `${error.name}: ${error.message}` };
    }
  };
  for (const [suffix, say] of Object.entries(ways)) {
    for (const text of PLAIN) await play(text.split(" ")[0] + suffix, () => say(text));
    await play("ask" + suffix, async () => {
      const first = await say("ask");
      const second = await say("Ada", first.taskId);
      const task = await client.getTask(isV1 ? sdk.GetTaskRequest.fromJSON({ id: first.taskId }) : { id: first.taskId });
      return { ...second, question: first.question, history: task.history.map((each) => parts(each)[0]) };
    });
    await play("wait" + suffix, async () => {
      const first = new Told().take(await client.sendMessage(request("wait", undefined, true)));
      const id = { id: first.taskId };
      const task = await client.cancelTask(isV1 ? sdk.CancelTaskRequest.fromJSON(id) : id);
      return { shown: [], state: state(task.status) };
    });
  }
  writeFileSync(process.env.REPORT, JSON.stringify(report));
}

await main();
