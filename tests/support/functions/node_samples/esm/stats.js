// Figures out of a batch of queue messages, as an ECMAScript module with settings beside it.
import { readFile } from 'node:fs/promises';
import median from '#lib/median';

const settings = JSON.parse(await readFile(new URL('./settings.json', import.meta.url), 'utf8'));

async function* readings(event) {
  for (const { messages } of event.records) yield* messages.map(Number).filter(Number.isFinite);
}

export const handler = async (event, context) => {
  const values = [];
  for await (const value of readings(event)) values.push(value);
  return { count: values.length, median: `${median(values)} ${settings.unit}` };
};
