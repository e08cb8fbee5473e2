// Makes calls for the suite: each line of standard input asks for one, each line of standard output answers one by its id.

import { File } from "node:buffer";
import { createInterface } from "node:readline";

import { createOpenAI } from "@ai-sdk/openai";
import { generateText, streamText } from "ai";
import OpenAI from "openai";

import { call } from "./calls.mjs";

globalThis.File ??= File; // Node 18 has it there only

const KINDS = {
  official: ({ client, ...asked }) => call(new OpenAI(client), asked),
  ai: talk,
};

/** Have a conversation by the AI SDK: one turn for each text, each with all that was said and answered before. */
async function talk({ client, api, model, texts, stream }) {
  const messages = [];
  const turns = [];
  try {
    for (const text of texts) {
      messages.push({ role: "user", content: text });
      const turn = await (stream ? streamed : generateText)({ model: createOpenAI(client)[api](model), messages, maxRetries: 0 });
      messages.push(...(await turn.response).messages);
      turns.push({ text: await turn.text, usage: await turn.usage, finishReason: await turn.finishReason });
    }
    return { turns };
  } catch (error) {
    return { turns, error: { kind: error.name, status: error.statusCode, message: error.message, data: error.data } };
  }
}

/** streamText, read to its end; an error is thrown instead of being an event. */
async function streamed(asked) {
  const turn = streamText({ ...asked, onError: () => {} });
  for await (const part of turn.fullStream) if (part.type === "error") throw part.error;
  return turn;
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, kind, ...asked } = JSON.parse(line);
  KINDS[kind](asked).then((outcome) => process.stdout.write(`${JSON.stringify({ id, ...outcome })}\n`));
}
