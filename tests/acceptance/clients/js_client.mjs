// Takes every step of a client with @a2a-js/sdk, and prints one JSON report.
//
// node js_client.mjs FOLDER URL BINDING; npm installed the SDK in FOLDER. The report has the same words for every
// version and binding: {kind, id, contextId, state, parts, ...}, with states and kinds as v0.3 spells them.

import { randomUUID } from "node:crypto";
import { createRequire } from "node:module";
import { join } from "node:path";

const [folder, url, binding] = process.argv.slice(2);
const require = createRequire(join(folder, "package.json"));
const sdk = require("@a2a-js/sdk");
const { ClientFactory, ClientFactoryOptions } = require("@a2a-js/sdk/client");
const HOOK = "https://hook.invalid/";

const V1 = {
  request: ({ text, data, skill, taskId, immediately = false }) =>
    sdk.SendMessageRequest.fromJSON({
      message: {
        messageId: randomUUID(),
        role: "ROLE_USER",
        parts: [data ? { data } : { text }],
        taskId,
        metadata: skill && { skillId: skill },
      },
      configuration: { returnImmediately: immediately },
    }),
  told(given) {
    const { $case: kind, value } = given.payload ?? { $case: "messageId" in given ? "message" : "task", value: given };
    const parts = (of) => of?.parts.map(({ content }) => ({ [content.$case]: content.value }));
    const state = ({ status }) =>
      sdk.TaskState[status.state].slice("TASK_STATE_".length).replace("_", "-").toLowerCase();
    switch (kind) {
      case "task":
        return {
          kind, id: value.id, contextId: value.contextId, state: state(value),
          said: parts(value.status.message), artifacts: value.artifacts.map(parts),
        };
      case "message":
        return { kind, parts: parts(value) };
      case "statusUpdate":
        return { kind: "status-update", id: value.taskId, state: state(value), said: parts(value.status.message) };
      case "artifactUpdate":
        return {
          kind: "artifact-update", id: value.taskId, append: value.append, lastChunk: value.lastChunk,
          parts: parts(value.artifact),
        };
    }
  },
  push: {
    create: (client, taskId, id) =>
      client.createTaskPushNotificationConfig(
        sdk.TaskPushNotificationConfig.fromJSON({ taskId, id, url: HOOK, token: "secret" }),
      ),
    get: (client, taskId, id) => client.getTaskPushNotificationConfig({ taskId, id }),
    list: async (client, taskId) =>
      (await client.listTaskPushNotificationConfig({ taskId, pageSize: 10, pageToken: "" })).configs,
    delete: (client, taskId, id) => client.deleteTaskPushNotificationConfig({ taskId, id }),
    told: ({ id, taskId, url: hook }) => ({ id, taskId, hook }),
  },
  async list(client, contextId) {
    const request = { ...sdk.ListTasksRequest.fromJSON({}), contextId, pageSize: 10 };
    return (await client.listTasks(request)).tasks.map((task) => task.id);
  },
};

const V0_3 = {
  request: ({ text, data, skill, taskId, immediately = false }) => ({
    message: {
      kind: "message",
      messageId: randomUUID(),
      role: "user",
      parts: [data ? { kind: "data", data } : { kind: "text", text }],
      taskId,
      metadata: skill && { skillId: skill },
    },
    configuration: { blocking: !immediately },
  }),
  told(value) {
    const { kind } = value;
    const parts = (of) => of?.parts.map(({ kind: _, ...part }) => part);
    switch (kind) {
      case "task":
        return {
          kind, id: value.id, contextId: value.contextId, state: value.status.state,
          said: parts(value.status.message), artifacts: (value.artifacts ?? []).map(parts),
        };
      case "message":
        return { kind, parts: parts(value) };
      case "status-update":
        return { kind, id: value.taskId, state: value.status.state, said: parts(value.status.message) };
      case "artifact-update":
        return {
          kind, id: value.taskId, append: value.append, lastChunk: value.lastChunk, parts: parts(value.artifact),
        };
    }
  },
  push: {
    create: (client, taskId, id) =>
      client.setTaskPushNotificationConfig({ taskId, pushNotificationConfig: { id, url: HOOK, token: "secret" } }),
    get: (client, id, pushNotificationConfigId) =>
      client.getTaskPushNotificationConfig({ id, pushNotificationConfigId }),
    list: (client, id) => client.listTaskPushNotificationConfig({ id }),
    delete: (client, id, pushNotificationConfigId) =>
      client.deleteTaskPushNotificationConfig({ id, pushNotificationConfigId }),
    told: ({ taskId, pushNotificationConfig: { id, url: hook } }) => ({ id, taskId, hook }),
  },
};

// What was asked for, to see which binding the SDK took.
const paths = new Set();
const { fetch } = globalThis;
globalThis.fetch = (to, init) => {
  paths.add(new URL(to).pathname);
  return fetch(to, init);
};

const dialect = sdk.SendMessageRequest ? V1 : V0_3; // v0.3 has no classes of its messages
const options = ClientFactoryOptions.createFrom(ClientFactoryOptions.default, { preferredTransports: [binding] });
const client = await new ClientFactory(options).createFromUrl(url);
const card = await client.getAgentCard();

const send = async (said) => dialect.told(await client.sendMessage(dialect.request(said)));
const get = async (id) => dialect.told(await client.getTask({ id }));
const cancel = async (id) => dialect.told(await client.cancelTask({ id }));

async function stream(said) {
  const events = [];
  for await (const event of client.sendMessageStream(dialect.request(said))) events.push(dialect.told(event));
  return events;
}

/** The name of the error that the step raises. */
async function refused(step) {
  try {
    await step();
  } catch (error) {
    return error.name;
  }
  return "nothing";
}

const steps = {
  card: () => ({ name: card.name, push: card.capabilities.pushNotifications }),
  send: () => send({ text: "Ada", skill: "greet" }),
  get: async () => get((await send({ text: "Ada", skill: "greet" })).id),
  direct: () => send({ text: "hi", skill: "direct" }),
  stream: () => stream({ text: "Ada", skill: "greet" }),
  chunks: () => stream({ data: { tasks: [{ name: "chunks" }] } }),
  async turns() {
    const asked = await send({ data: { tasks: [{ name: "interview" }] } });
    const again = await send({ text: "Ada", taskId: asked.id });
    return [asked, again, (await stream({ text: "London", taskId: asked.id })).at(-1), await get(asked.id)];
  },
  async resubscribe() {
    const running = await send({ data: { tasks: [{ name: "hang" }] }, immediately: true });
    const seen = [];
    let cancelled;
    for await (const event of client.resubscribeTask({ id: running.id })) {
      seen.push(dialect.told(event));
      cancelled ??= await cancel(running.id);
    }
    return { running, cancelled, seen };
  },
  async list() {
    const task = await send({ text: "Ada", skill: "greet" });
    return { id: task.id, listed: await dialect.list?.(client, task.contextId) };
  },
  async push() {
    if (!card.capabilities.pushNotifications) return undefined;
    const { id } = await send({ data: { tasks: [{ name: "hang" }] }, immediately: true });
    const { create, get: read, list, delete: remove, told } = dialect.push;
    const listed = async () => (await list(client, id)).map((config) => told(config).id).sort();
    const report = { id, created: told(await create(client, id, "one")) };
    await create(client, id, "two");
    report.got = told(await read(client, id, "one"));
    report.listed = await listed();
    await remove(client, id, "one");
    report.left = await listed();
    report.gone = await refused(() => read(client, id, "one"));
    await cancel(id);
    return report;
  },
  errors: async () => ({
    get: await refused(() => get("nope")),
    cancel: await refused(() => cancel("nope")),
    "cancel ended": await refused(async () => cancel((await send({ text: "Ada", skill: "greet" })).id)),
    send: await refused(() => send({ text: "x", taskId: "nope" })),
  }),
};

const report = {};
for (const [name, step] of Object.entries(steps)) {
  try {
    report[name] = await step();
  } catch (error) {
    report[name] = { raised: String(error.stack) };
  }
}
console.log(JSON.stringify({ ...report, paths: [...paths] }));
