/**
 * What a watch holds: the latest value of each channel, in columns. It knows no network, clock or
 * browser. A PV has a slot; its setpoint lies at `2 * slot` of each column, its readback at the next place.
 */
import { fromBinary } from "@bufbuild/protobuf";
import { ChannelMetadataSchema, Freshness, type ArrayPart, type ChannelMetadata, type ValueColumns } from "../../gen/drey/common/v1/value_pb";
import { LeaveReason, type ShardState } from "../../gen/drey/monitor/v1/watch_pb";
import { ARRAY, Kind, type Datum } from "./datum";
import type { WatchMessage } from "./watch_wire";

export type Role = 0 | 1;
export const SETPOINT: Role = 0;
export const READBACK: Role = 1;

/** A part of the value that is being put together. */
interface Joining {
  readonly place: number;
  readonly heap: Uint8Array;
  received: number;
}

export class WatchState {
  /** Grows with each message that changed something. */
  version = 0;
  /** Grows when PVs join, leave, or are named. */
  population = 0;
  /** Names the instant to go on from; empty: from the beginning. */
  token = "";
  /** The baseline is complete: what is held is the truth of one instant, and what followed. */
  complete = false;
  /** Updates that newer ones replaced before they were sent. */
  merged = 0n;
  shards: readonly ShardState[] = [];
  /** Time of the gateway at the last checkpoint, nanoseconds since 1970 UTC. */
  timeNs = 0n;
  /** Why values are stale, in words, newest. */
  staleReason = "";
  notFound: readonly string[] = [];

  /** Of slots. Number 0: the slot is free. */
  numbers = new Float64Array(0);
  names: string[] = [];
  /** Value of `version` when the slot last changed. */
  changed = new Float64Array(0);

  /** Of channels. State 0: the PV has no such channel. */
  types = new Uint8Array(0);
  states = new Uint8Array(0);
  freshness = new Uint8Array(0);
  severities = new Uint8Array(0);
  statuses = new Uint16Array(0);
  sourceTimes = new BigInt64Array(0);
  receiveTimes = new BigInt64Array(0);
  data = new BigUint64Array(0);
  heaps: (Uint8Array | undefined)[] = [];
  /** As it came, until it is asked for. */
  readonly #metadata: (ChannelMetadata | Uint8Array | undefined)[] = [];

  readonly #slots = new Map<number, number>();
  readonly #free: number[] = [];
  #used = 0;
  #joining: Joining | undefined;
  /** Places that the baseline under way has told of; undefined where none is. */
  #told: Uint8Array | undefined;

  get size(): number {
    return this.#slots.size;
  }

  /** Slots in use, in no order. */
  slots(): IterableIterator<number> {
    return this.#slots.values();
  }

  slotOf(number: number | string): number | undefined {
    return this.#slots.get(Number(number));
  }

  datum(slot: number, role: Role): Datum {
    const place = 2 * slot + role;
    return { kind: this.types[place]!, bits: this.data[place]!, heap: this.heaps[place], label: "" };
  }

  /** Undefined: not known yet, or there is no such channel. */
  metadataOf(slot: number, role: Role): ChannelMetadata | undefined {
    const held = this.#metadata[2 * slot + role];
    if (!(held instanceof Uint8Array)) return held;
    return (this.#metadata[2 * slot + role] = fromBinary(ChannelMetadataSchema, held));
  }

  hasChannel(slot: number, role: Role): boolean {
    return this.states[2 * slot + role] !== 0;
  }

  /** A new connection: what was cut in the middle of a value will come again. */
  beginStream(): void {
    this.#joining = undefined;
  }

  forgetToken(): void {
    this.token = "";
  }

  apply({ part }: WatchMessage): void {
    switch (part.case) {
      case "baselineBegin":
        this.#begin(part.value.keepsState);
        break;
      case "baseline":
      case "diff":
        if (part.value.columns !== undefined) this.#take(part.value.columns);
        if (part.case === "diff") this.merged += part.value.merged;
        break;
      case "baselineEnd":
        this.#end(part.value.token);
        break;
      case "checkpoint":
        if (part.value.token !== "" && this.complete) this.token = part.value.token;
        this.shards = part.value.shards;
        this.timeNs = part.value.timeNs;
        break;
      case "freshness":
        this.#setFreshness(part.value.freshness, part.value.all ? undefined : part.value.pvNumbers);
        this.staleReason = part.value.freshness === Freshness.STALE ? part.value.reason : "";
        break;
      case "left":
        for (const pv of part.value.pvs) this.#drop(Number(pv.number), pv.reason);
        break;
      case "metadata":
        for (const row of part.value.rows) {
          const slot = this.#slot(Number(row.number));
          this.names[slot] = row.name;
          this.#metadata[2 * slot + SETPOINT] = row.setpoint;
          this.#metadata[2 * slot + READBACK] = row.readback;
          this.changed[slot] = this.version + 1;
        }
        this.population += 1;
        break;
      case "resyncRequired":
        this.token = "";
        break;
      case "names":
        this.notFound = part.value.notFound;
        break;
      default:
        return;
    }
    this.version += 1;
  }

  #begin(keepsState: boolean): void {
    this.complete = false;
    this.#joining = undefined;
    this.#told = undefined;
    if (keepsState) return;
    // cut before its end, this baseline leaves less than the old token promises
    this.token = "";
    this.#told = new Uint8Array(this.states.length);
  }

  #end(token: string): void {
    const told = this.#told;
    if (told !== undefined) {
      for (const [number, slot] of this.#slots) {
        const hasSetpoint = told[2 * slot] === 1;
        const hasReadback = told[2 * slot + 1] === 1;
        if (!hasSetpoint) this.#clear(2 * slot);
        if (!hasReadback) this.#clear(2 * slot + 1);
        if (!hasSetpoint && !hasReadback) this.#release(number, slot);
      }
      this.#told = undefined;
    }
    this.token = token;
    this.complete = true;
  }

  #take(columns: ValueColumns): void {
    const part = columns.part;
    const count = columns.pvNumbers.length / 8;
    const numbers = aligned(columns.pvNumbers, BigInt64Array);
    const data = aligned(columns.data, BigUint64Array);
    const sourceTimes = aligned(columns.sourceTimes, BigInt64Array);
    const receiveTimes = aligned(columns.receiveTimes, BigInt64Array);
    const statuses = aligned(columns.statuses, Uint16Array);
    // a large value stands alone, and is taken with its type and alarm when all of it is here
    const whole = part && this.#join(2 * this.#slot(Number(numbers[0])) + columns.roles[0]! - 1, columns.heap, part);
    if (part !== undefined && whole === undefined) return;
    for (let index = 0; index < count; index++) {
      const slot = this.#slot(Number(numbers[index]));
      const place = 2 * slot + columns.roles[index]! - 1;
      const kind = columns.types[index]!;
      this.types[place] = kind;
      this.states[place] = columns.states[index]!;
      this.freshness[place] = columns.freshness[index] ?? Freshness.UNSPECIFIED;
      this.severities[place] = columns.severities[index]!;
      this.statuses[place] = statuses[index]!;
      this.sourceTimes[place] = sourceTimes[index]!;
      this.receiveTimes[place] = receiveTimes[index]!;
      this.data[place] = data[index]!;
      this.changed[slot] = this.version + 1;
      if (this.#told !== undefined) this.#told[place] = 1;
      if (kind < ARRAY && kind !== Kind.String) {
        this.heaps[place] = undefined;
      } else if (whole !== undefined) {
        this.heaps[place] = whole;
      } else {
        const offset = Number(data[index]! & 0xffffffffn);
        this.heaps[place] = columns.heap.slice(offset, offset + Number(data[index]! >> 32n));
      }
    }
  }

  /** All bytes of a large value with its last part; undefined before. */
  #join(place: number, heap: Uint8Array, { firstElement, totalElements }: ArrayPart): Uint8Array | undefined {
    const first = Number(firstElement);
    if (first === 0) this.#joining = { place, heap: new Uint8Array(Number(totalElements)), received: 0 };
    const joining = this.#joining;
    if (joining === undefined || joining.place !== place || joining.received !== first)
      throw new Error(`a part that begins at byte ${first} does not follow what came before`);
    joining.heap.set(heap, first);
    joining.received += heap.length;
    if (joining.received < joining.heap.length) return undefined;
    this.#joining = undefined;
    return joining.heap;
  }

  #setFreshness(freshness: Freshness, numbers: readonly string[] | undefined): void {
    const slots = numbers === undefined ? this.#slots.values() : numbers.map((number) => this.#slots.get(Number(number)));
    for (const slot of slots) {
      if (slot === undefined) continue;
      this.freshness[2 * slot] = freshness;
      this.freshness[2 * slot + 1] = freshness;
      this.changed[slot] = this.version + 1;
    }
  }

  #drop(number: number, reason: LeaveReason): void {
    const slot = this.#slots.get(number);
    if (slot === undefined) return;
    this.#clear(2 * slot);
    this.#clear(2 * slot + 1);
    this.changed[slot] = this.version + 1;
    // one that gets other channels comes again at once, with its name as it was
    if (reason !== LeaveReason.CHANNELS_CHANGED) this.#release(number, slot);
  }

  #release(number: number, slot: number): void {
    this.#slots.delete(number);
    this.#free.push(slot);
    this.numbers[slot] = 0;
    this.names[slot] = "";
    this.#metadata[2 * slot + SETPOINT] = this.#metadata[2 * slot + READBACK] = undefined;
    this.population += 1;
  }

  #clear(place: number): void {
    this.types[place] = Kind.None;
    this.states[place] = 0;
    this.freshness[place] = 0;
    this.severities[place] = 0;
    this.heaps[place] = undefined;
  }

  #slot(number: number): number {
    const found = this.#slots.get(number);
    if (found !== undefined) return found;
    const slot = this.#free.pop() ?? this.#used++;
    if (slot >= this.numbers.length) this.#grow();
    this.#slots.set(number, slot);
    this.numbers[slot] = number;
    this.names[slot] = "";
    this.#metadata[2 * slot + SETPOINT] = this.#metadata[2 * slot + READBACK] = undefined;
    this.population += 1;
    return slot;
  }

  #grow(): void {
    const slots = Math.max(1024, 2 * this.numbers.length);
    const channels = 2 * slots;
    this.numbers = grown(this.numbers, new Float64Array(slots));
    this.changed = grown(this.changed, new Float64Array(slots));
    this.types = grown(this.types, new Uint8Array(channels));
    this.states = grown(this.states, new Uint8Array(channels));
    this.freshness = grown(this.freshness, new Uint8Array(channels));
    this.severities = grown(this.severities, new Uint8Array(channels));
    this.statuses = grown(this.statuses, new Uint16Array(channels));
    this.sourceTimes = grown(this.sourceTimes, new BigInt64Array(channels));
    this.receiveTimes = grown(this.receiveTimes, new BigInt64Array(channels));
    this.data = grown(this.data, new BigUint64Array(channels));
    if (this.#told !== undefined) this.#told = grown(this.#told, new Uint8Array(channels));
  }
}

function grown<T extends { set(from: T): void }>(from: T, to: T): T {
  to.set(from);
  return to;
}

/** Columns begin anywhere in a message, and typed arrays only at multiples of their width. */
function aligned<T>(bytes: Uint8Array, kind: new (buffer: ArrayBuffer) => T): T {
  return new kind(bytes.slice().buffer as ArrayBuffer);
}
