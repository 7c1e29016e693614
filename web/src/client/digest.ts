/** The digest of a plan, by the recipe at the message `Plan` of the contracts. */
import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";
import type { PolicySource, RestorePolicy } from "../../gen/drey/catalog/v1/catalog_pb";
import type { Value } from "../../gen/drey/common/v1/value_pb";
import type { Guard, Plan, PlanItem } from "../../gen/drey/restore/v1/restore_pb";
import { datumOf, Kind, NO_DATUM } from "./datum";

const RECIPE = 3;
const UTF8 = new TextEncoder();

/** Bytes, little-endian, in a buffer that grows. */
class Bytes {
  #bytes = new Uint8Array(1 << 12);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  get all(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(0, this.#length);
  }

  #reserve(more: number): number {
    const at = this.#length;
    this.#length += more;
    if (this.#length > this.#bytes.length) {
      const larger = new Uint8Array(2 * this.#length);
      larger.set(this.#bytes);
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    return at;
  }

  u8(number: number): void {
    const at = this.#reserve(1);
    this.#view.setUint8(at, number);
  }
  u32(number: number): void {
    const at = this.#reserve(4);
    this.#view.setUint32(at, number, true);
  }
  i32(number: number): void {
    const at = this.#reserve(4);
    this.#view.setInt32(at, number, true);
  }
  u64(number: bigint): void {
    const at = this.#reserve(8);
    this.#view.setBigUint64(at, BigInt.asUintN(64, number), true);
  }
  /** NaN, which is one for all, where there is none. */
  f64(number: number | undefined): void {
    if (number === undefined || Number.isNaN(number)) return this.u64(0x7ff8000000000000n);
    const at = this.#reserve(8);
    this.#view.setFloat64(at, number, true);
  }
  raw(bytes: Uint8Array): void {
    const at = this.#reserve(bytes.length);
    this.#bytes.set(bytes, at);
  }
  text(text: string): void {
    const bytes = UTF8.encode(text);
    this.u32(bytes.length);
    this.raw(bytes);
  }
  /** A column of bytes: all lengths, then all. */
  cells(cells: readonly Uint8Array[]): void {
    for (const cell of cells) this.u32(cell.length);
    for (const cell of cells) this.raw(cell);
  }
}

function nanoseconds(time: Timestamp | undefined): bigint {
  return time === undefined ? 0n : time.seconds * 1_000_000_000n + BigInt(time.nanos);
}

function duration(time: Duration | undefined): bigint {
  return time === undefined ? -1n : time.seconds * 1_000_000_000n + BigInt(time.nanos);
}

function putGuard(bytes: Bytes, guard: Guard): void {
  bytes.text(guard.expression);
  bytes.text(guard.description);
}

function putPlan(bytes: Bytes, plan: Plan, itemCount: number): void {
  const spec = plan.spec;
  bytes.text("drey.restore.v1.Plan");
  bytes.u32(RECIPE);
  for (const text of [plan.id, plan.snapshotId, plan.undoesRestoreId, plan.actor?.principal ?? "", spec?.comment ?? ""])
    bytes.text(text);
  bytes.u64(nanoseconds(plan.createTime));
  bytes.u64(nanoseconds(plan.expireTime));
  bytes.u32(spec?.guards.length ?? 0);
  for (const guard of spec?.guards ?? []) putGuard(bytes, guard);
  bytes.u32(spec?.gates.length ?? 0);
  for (const gate of spec?.gates ?? []) {
    bytes.i32(gate.afterStage);
    if (gate.condition.case === "maxFailed") {
      bytes.u8(1);
      bytes.i32(gate.condition.value);
    } else if (gate.condition.case === "mustHold") {
      bytes.u8(2);
      putGuard(bytes, gate.condition.value);
    } else {
      bytes.u8(0);
    }
  }
  const rollback = spec?.rollback;
  bytes.u8(rollback === undefined ? 0 : 1);
  if (rollback !== undefined) {
    bytes.i32(rollback.maxFailed ?? -1);
    bytes.u8(rollback.onGuard ? 1 : 0);
  }
  bytes.u32(itemCount);
}

function policyBytes(policy: RestorePolicy | undefined): Uint8Array {
  const bytes = new Bytes();
  bytes.i32(policy?.completion ?? 0);
  bytes.u64(duration(policy?.timeout));
  bytes.u64(duration(policy?.settle));
  bytes.u8(policy?.stage === undefined ? 0 : 1);
  bytes.i32(policy?.stage ?? 0);
  bytes.text(policy?.doneChannel ?? "");
  for (const number of [policy?.doneValue, policy?.rampRate, policy?.rampStep, policy?.allowed?.low, policy?.allowed?.high])
    bytes.f64(number);
  return bytes.all;
}

function putValues(bytes: Bytes, items: readonly PlanItem[], get: (item: PlanItem) => Value | undefined): void {
  const values = items.map((item) => {
    const value = get(item);
    if (value !== undefined && (value.alarmMessage !== "" || value.userTag !== undefined))
      throw new Error(`a value of ${item.name} has an alarm message or a user tag, which the digest leaves out`);
    return value?.data.case === undefined ? undefined : value;
  });
  const data = values.map((value) => (value === undefined ? NO_DATUM : datumOf(value)));
  data.forEach((datum, index) => {
    if (values[index] !== undefined && datum.kind === Kind.None)
      throw new Error(`a value of ${items[index]!.name} is of a type that this program is too old for`);
    bytes.u8(datum.kind);
  });
  for (const value of values) bytes.u8(value?.state ?? 0);
  for (const value of values) bytes.u8(value?.origin ?? 0);
  for (const value of values) bytes.u8(value?.severity ?? 0);
  for (const value of values) bytes.u32(value?.status ?? 0);
  for (const value of values) bytes.u64(value?.sourceTimeNs ?? 0n);
  for (const value of values) bytes.u64(value?.receiveTimeNs ?? 0n);
  for (const datum of data) bytes.u64(datum.bits);
  bytes.cells(data.map((datum) => datum.heap ?? new Uint8Array()));
  bytes.cells(data.map((datum) => UTF8.encode(datum.label)));
}

function textsBytes(texts: readonly string[]): Uint8Array {
  const bytes = new Bytes();
  for (const text of texts) bytes.text(text);
  return bytes.all;
}

function sourcesBytes(sources: readonly PolicySource[]): Uint8Array {
  const bytes = new Bytes();
  for (const { policyField, source } of sources) {
    bytes.text(policyField);
    switch (source.case) {
      case "pv":
        bytes.u8(2);
        break;
      case "device":
        bytes.u8(3);
        bytes.text(source.value);
        break;
      case "tag":
        bytes.u8(4);
        bytes.text(source.value.group);
        bytes.text(source.value.tag);
        break;
      case "builtIn":
        bytes.u8(5);
        break;
      default:
        throw new Error(`the source of ${policyField} is one that this program is too old for`);
    }
  }
  return bytes.all;
}

/** 64 hexadecimal digits. `unordered`: all items of the plan, each whole. */
export async function planDigest(plan: Plan, unordered: readonly PlanItem[]): Promise<string> {
  if (plan.digestRecipe !== RECIPE)
    throw new Error(`the digest of this plan is of recipe ${plan.digestRecipe}, and this program knows ${RECIPE}`);
  if (!globalThis.crypto?.subtle)
    throw new Error("this browser computes no digests on a page without TLS: open it by https, or on 127.0.0.1");
  const items = unordered
    .map((item) => [BigInt(item.number), item] as const)
    .sort(([first], [second]) => (first < second ? -1 : 1))
    .map(([, item]) => item);
  const bytes = new Bytes();
  putPlan(bytes, plan, items.length);
  for (const item of items) bytes.u64(BigInt(item.number));
  for (const field of ["name", "address", "readbackAddress"] as const)
    bytes.cells(items.map((item) => UTF8.encode(item[field])));
  putValues(bytes, items, (item) => item.current);
  putValues(bytes, items, (item) => item.stored);
  putValues(bytes, items, (item) => item.target);
  putValues(bytes, items, (item) => item.storedReadback);
  for (const item of items) bytes.f64(item.delta);
  for (const item of items) bytes.f64(item.deviation);
  for (const item of items) bytes.i32(item.stage);
  for (const item of items) bytes.u8(item.skip);
  for (const item of items) bytes.f64(item.tolerance?.absolute ?? 0);
  for (const item of items) bytes.f64(item.tolerance?.relative ?? 0);
  for (const item of items) bytes.f64(item.readbackTolerance?.absolute ?? 0);
  for (const item of items) bytes.f64(item.readbackTolerance?.relative ?? 0);
  bytes.cells(items.map((item) => policyBytes(item.policy)));
  bytes.cells(
    items.map((item) => {
      const steps = new Bytes();
      for (const step of item.rampSteps) steps.f64(step);
      return steps.all;
    }),
  );
  bytes.cells(items.map((item) => textsBytes(item.enumLabels)));
  bytes.cells(items.map((item) => textsBytes(item.warnings)));
  bytes.cells(items.map((item) => sourcesBytes(item.policySources)));
  bytes.cells(items.map((item) => UTF8.encode(item.record)));
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes.all));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
