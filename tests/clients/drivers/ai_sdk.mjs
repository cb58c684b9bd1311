// The AI SDK with its A2A provider: the text of generateText and of streamText. node ai_sdk.mjs FOLDER URL

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, url] = process.argv.slice(2);
const load = (name) => {
  const place = join(folder, "node_modules", name);
  const { exports, main } = JSON.parse(readFileSync(join(place, "package.json")));
  const entry = exports?.["."]?.import ?? main;
  return import(pathToFileURL(join(place, entry.default ?? entry)));
};
const { a2a } = await load("a2a-ai-provider");
const { generateText, streamText } = await load("ai");
const PLAIN = "hello there,separators,emoji,interim,chunks,data,file,fail,reject,reply,slow".split(",");
const model = a2a(`${url}/.well-known/agent-card.json`);
const files = (given) => (given ?? []).map((file) => ({ file: Buffer.from(file.uint8Array).toString("hex") }));

const report = {};
const play = async (name, scenario) => {
  try {
    report[name] = await scenario();
  } catch (error) {
    report[name] = { shown: [], raised: `${error.name}: ${error.message}` };
  }
};
for (const prompt of PLAIN) {
  const [name] = prompt.split(" ");
  await play(name, async () => {
    let raised;
    const result = streamText({ model, prompt, maxRetries: 0, onError: ({ error }) => (raised = error) });
    const shown = [];
    for await (const text of result.textStream) shown.push(text);
    if (raised) throw raised;
    return { shown: [...shown, ...files(await result.files)] };
  });
  await play(name + "~blocking", async () => {
    const result = await generateText({ model, prompt, maxRetries: 0 });
    return { shown: [result.text, ...files(result.files)].filter((each) => each !== "") };
  });
}
writeFileSync(process.env.REPORT, JSON.stringify(report));
process.exit(0);
