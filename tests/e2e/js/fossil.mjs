// For each line of input, {source, delta} in base 64, says what the library makes of them: the target that the delta
// gives, and the library's own delta for that target. Usage: node fossil.mjs; ends when its input does.

import { createInterface } from "node:readline";
import { applyDelta, createDelta } from "fossil-delta";

const read = (text) => new Uint8Array(Buffer.from(text, "base64"));
const written = (bytes) => Buffer.from(bytes).toString("base64");

for await (const line of createInterface({ input: process.stdin })) {
  const given = JSON.parse(line);
  const source = read(given.source);
  const target = applyDelta(source, read(given.delta));
  process.stdout.write(`${JSON.stringify({ target: written(target), delta: written(createDelta(source, target)) })}\n`);
}
