/**
 * The data of a value in one layout, whichever message it came in: that of `ValueColumns`, which is also
 * that of a plan's digest.
 */
import type { Value } from "../../gen/drey/common/v1/value_pb";

export const enum Kind {
  None = 0,
  Bool = 1,
  Int8 = 2,
  Int16 = 3,
  Int32 = 4,
  Int64 = 5,
  Uint8 = 6,
  Uint16 = 7,
  Uint32 = 8,
  Uint64 = 9,
  Float32 = 10,
  Float64 = 11,
  Enum = 12,
  String = 13,
}

export const ARRAY = 64;

/** `kind`: `ValueType`, `ARRAY` added for an array. `bits`: of a scalar. `heap`: of a string or an array. */
export interface Datum {
  readonly kind: number;
  readonly bits: bigint;
  readonly heap: Uint8Array | undefined;
  /** Label that an enumeration was sent with. */
  readonly label: string;
}

export const NO_DATUM: Datum = { kind: Kind.None, bits: 0n, heap: undefined, label: "" };

const scratch = new DataView(new ArrayBuffer(8));
const UTF8 = new TextEncoder();
const READ_UTF8 = new TextDecoder("utf-8");

function float64Bits(number: number): bigint {
  scratch.setFloat64(0, number);
  return Number.isNaN(number) ? 0x7ff8000000000000n : scratch.getBigUint64(0);
}

function float32Bits(number: number): number {
  scratch.setFloat32(0, number);
  return Number.isNaN(number) ? 0x7fc00000 : scratch.getUint32(0);
}

function scalar(kind: Kind, bits: bigint | number, label = ""): Datum {
  return { kind, bits: BigInt.asUintN(64, BigInt(bits)), heap: undefined, label };
}

function packed<T>(kind: Kind, elements: readonly T[], width: number, put: (view: DataView, at: number, e: T) => void): Datum {
  const heap = new Uint8Array(elements.length * width);
  const view = new DataView(heap.buffer);
  elements.forEach((element, index) => put(view, index * width, element));
  return { kind: kind + ARRAY, bits: 0n, heap, label: "" };
}

function packedStrings(strings: readonly Uint8Array[]): Datum {
  const head = 4 + 4 * strings.length;
  const heap = new Uint8Array(strings.reduce((total, each) => total + each.length, head));
  const view = new DataView(heap.buffer);
  view.setUint32(0, strings.length, true);
  let offset = head;
  strings.forEach((each, index) => {
    view.setUint32(4 + 4 * index, each.length, true);
    heap.set(each, offset);
    offset += each.length;
  });
  return { kind: Kind.String + ARRAY, bits: 0n, heap, label: "" };
}

/** The data of a message; `NO_DATUM` where it has none. Every NaN is the same one. */
export function datumOf(value: Value | undefined): Datum {
  const data = value?.data;
  switch (data?.case) {
    case "boolValue":
      return scalar(Kind.Bool, data.value ? 1 : 0);
    case "int8Value":
      return scalar(Kind.Int8, data.value);
    case "int16Value":
      return scalar(Kind.Int16, data.value);
    case "int32Value":
      return scalar(Kind.Int32, data.value);
    case "int64Value":
      return scalar(Kind.Int64, data.value);
    case "uint8Value":
      return scalar(Kind.Uint8, data.value);
    case "uint16Value":
      return scalar(Kind.Uint16, data.value);
    case "uint32Value":
      return scalar(Kind.Uint32, data.value);
    case "uint64Value":
      return scalar(Kind.Uint64, data.value);
    case "float32Value":
      return scalar(Kind.Float32, float32Bits(data.value));
    case "float64Value":
      return scalar(Kind.Float64, float64Bits(data.value));
    case "enumValue":
      return scalar(Kind.Enum, data.value.index, data.value.label);
    case "stringValue":
      return { kind: Kind.String, bits: 0n, heap: UTF8.encode(data.value), label: "" };
    case "rawStringValue":
      return { kind: Kind.String, bits: 0n, heap: data.value, label: "" };
    case "boolArray":
      return packed(Kind.Bool, data.value.elements, 1, (view, at, e) => view.setUint8(at, e ? 1 : 0));
    case "int8Array":
      return packed(Kind.Int8, data.value.elements, 1, (view, at, e) => view.setInt8(at, e));
    case "int16Array":
      return packed(Kind.Int16, data.value.elements, 2, (view, at, e) => view.setInt16(at, e, true));
    case "int32Array":
      return packed(Kind.Int32, data.value.elements, 4, (view, at, e) => view.setInt32(at, e, true));
    case "int64Array":
      return packed(Kind.Int64, data.value.elements, 8, (view, at, e) => view.setBigInt64(at, e, true));
    case "uint8Array":
      return { kind: Kind.Uint8 + ARRAY, bits: 0n, heap: data.value, label: "" };
    case "uint16Array":
      return packed(Kind.Uint16, data.value.elements, 2, (view, at, e) => view.setUint16(at, e, true));
    case "uint32Array":
      return packed(Kind.Uint32, data.value.elements, 4, (view, at, e) => view.setUint32(at, e, true));
    case "uint64Array":
      return packed(Kind.Uint64, data.value.elements, 8, (view, at, e) => view.setBigUint64(at, e, true));
    case "float32Array":
      return packed(Kind.Float32, data.value.elements, 4, (view, at, e) => view.setUint32(at, float32Bits(e), true));
    case "float64Array":
      return packed(Kind.Float64, data.value.elements, 8, (view, at, e) => view.setBigUint64(at, float64Bits(e), true));
    case "enumArray":
      return packed(Kind.Enum, data.value.elements, 2, (view, at, e) => view.setUint16(at, e, true));
    case "stringArray": {
      const { elements, rawElements } = data.value;
      return packedStrings(rawElements.length > 0 ? rawElements : elements.map((each) => UTF8.encode(each)));
    }
    default:
      return NO_DATUM;
  }
}

/** A scalar as a number; NaN where it is none. 64-bit integers lose what a number cannot hold. */
export function numberOf(datum: Datum): number {
  switch (datum.kind) {
    case Kind.Float64:
      scratch.setBigUint64(0, datum.bits);
      return scratch.getFloat64(0);
    case Kind.Float32:
      scratch.setUint32(0, Number(datum.bits & 0xffffffffn));
      return scratch.getFloat32(0);
    case Kind.Int8:
    case Kind.Int16:
    case Kind.Int32:
    case Kind.Int64:
      return Number(BigInt.asIntN(64, datum.bits));
    case Kind.Bool:
    case Kind.Uint8:
    case Kind.Uint16:
    case Kind.Uint32:
    case Kind.Uint64:
    case Kind.Enum:
      return Number(datum.bits);
    default:
      return NaN;
  }
}

function readStrings(heap: Uint8Array): string[] {
  const view = new DataView(heap.buffer, heap.byteOffset, heap.byteLength);
  const count = view.getUint32(0, true);
  let offset = 4 + 4 * count;
  return Array.from({ length: count }, (_, index) => {
    const length = view.getUint32(4 + 4 * index, true);
    const text = READ_UTF8.decode(heap.subarray(offset, offset + length));
    offset += length;
    return text;
  });
}

/** The elements of an array; none of a scalar. */
export function elementsOf(datum: Datum): ArrayLike<number | bigint | string> {
  if (datum.kind < ARRAY || datum.heap === undefined) return [];
  const copy = datum.heap.slice().buffer; // aligned
  switch (datum.kind - ARRAY) {
    case Kind.Bool:
    case Kind.Uint8:
      return new Uint8Array(copy);
    case Kind.Int8:
      return new Int8Array(copy);
    case Kind.Int16:
      return new Int16Array(copy);
    case Kind.Int32:
      return new Int32Array(copy);
    case Kind.Int64:
      return new BigInt64Array(copy);
    case Kind.Uint16:
    case Kind.Enum:
      return new Uint16Array(copy);
    case Kind.Uint32:
      return new Uint32Array(copy);
    case Kind.Uint64:
      return new BigUint64Array(copy);
    case Kind.Float32:
      return new Float32Array(copy);
    case Kind.Float64:
      return new Float64Array(copy);
    case Kind.String:
      return readStrings(datum.heap);
    default:
      return [];
  }
}

function shortFloat32(number: number): string {
  for (let digits = 6; digits < 9; digits++) {
    const text = Number(number.toPrecision(digits));
    if (Math.fround(text) === number) return numberText(text, undefined);
  }
  return numberText(number, undefined);
}

/** A number in `precision` digits after the point; in all that it has where that is undefined. */
export function numberText(number: number, precision: number | undefined): string {
  if (Object.is(number, -0)) return precision === undefined ? "-0" : `-${(0).toFixed(Math.min(precision, 15))}`;
  if (!Number.isFinite(number) || precision === undefined) return String(number);
  const digits = Math.max(0, Math.min(precision, 15));
  const size = Math.abs(number);
  // what display digits would show as nothing, or as a wall of digits
  if (size >= 1e9 || (size > 0 && size < 0.5 * 10 ** -digits)) return number.toExponential(Math.max(digits, 3));
  return number.toFixed(digits);
}

export interface Display {
  readonly precision?: number | undefined;
  readonly labels?: readonly string[] | undefined;
}

const SHOWN = 6;

function elementText(element: number | bigint | string, kind: number, display: Display): string {
  if (typeof element === "string") return JSON.stringify(element);
  if (typeof element === "bigint") return element.toString();
  if (kind === Kind.Float32 || kind === Kind.Float64) {
    if (display.precision !== undefined) return numberText(element, display.precision);
    return kind === Kind.Float32 ? shortFloat32(element) : numberText(element, undefined);
  }
  if (kind === Kind.Bool) return element === 0 ? "false" : "true";
  if (kind === Kind.Enum) return display.labels?.[element] ?? String(element);
  return String(element);
}

/** A value for people. Empty: there is none. */
export function datumText(datum: Datum, display: Display = {}): string {
  const { kind } = datum;
  if (kind === Kind.None) return "";
  if (kind >= ARRAY) {
    const elements = elementsOf(datum);
    const shown = Array.from({ length: Math.min(elements.length, SHOWN) }, (_, index) =>
      elementText(elements[index]!, kind - ARRAY, display),
    );
    const more = elements.length > SHOWN ? ", …" : "";
    return `${elements.length} × [${shown.join(", ")}${more}]`;
  }
  if (kind === Kind.String) return READ_UTF8.decode(datum.heap ?? new Uint8Array());
  if (kind === Kind.Int64) return BigInt.asIntN(64, datum.bits).toString();
  if (kind === Kind.Uint64) return datum.bits.toString();
  if (kind === Kind.Enum) {
    const label = datum.label || display.labels?.[Number(datum.bits)];
    return label ? label : `#${datum.bits}`;
  }
  return elementText(numberOf(datum), kind, display);
}
