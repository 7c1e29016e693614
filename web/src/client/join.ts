/** Values that are too large for one message come in parts, and are put together here. */
import type { Value } from "../../gen/drey/common/v1/value_pb";

function joinBytes(first: Uint8Array, second: Uint8Array): Uint8Array<ArrayBuffer> {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

/** Append the next part to what is held of a value. */
export function appendPart(held: Value, next: Value | undefined): void {
  if (next === undefined || next.data.case === undefined) return;
  const whole = held.data;
  const part = next.data;
  if (whole.case !== part.case) throw new Error(`a part of type ${part.case} follows one of type ${whole.case}`);
  switch (whole.case) {
    case "stringValue":
      whole.value += part.value as string;
      return;
    case "rawStringValue":
    case "uint8Array":
      whole.value = joinBytes(whole.value, part.value as Uint8Array);
      return;
    case "extract":
      appendPart(whole.value.elements!, (part.value as typeof whole.value).elements);
      return;
    case "stringArray": {
      const more = part.value as typeof whole.value;
      whole.value.elements.push(...more.elements);
      whole.value.rawElements.push(...more.rawElements);
      return;
    }
    default: {
      const list = (whole.value as { elements?: unknown[] }).elements;
      const more = (part.value as { elements?: unknown[] }).elements;
      if (list === undefined || more === undefined) throw new Error(`a value of type ${whole.case} has no parts`);
      for (const element of more) list.push(element);
    }
  }
}

/** Rows of a stream, each whole: those with nothing but further parts of the row before are joined to it. */
export function joinRows<Row extends { number: string }>(
  held: Row[],
  rows: readonly Row[],
  fields: readonly (keyof Row)[],
): void {
  for (const row of rows) {
    const last = held.at(-1);
    if (last === undefined || last.number !== row.number) {
      held.push(row);
      continue;
    }
    for (const field of fields) {
      const whole = last[field] as Value | undefined;
      if (whole !== undefined) appendPart(whole, row[field] as Value | undefined);
    }
  }
}
