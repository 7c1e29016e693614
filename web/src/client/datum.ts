/**
 * The data of a value in one layout, whichever message it came in: that of `ValueColumns`, which is also
 * that of a plan's digest.
 */
import { ArrayDecimation, type Value } from "../../gen/drey/common/v1/value_pb";

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
/** Added to the kind of an array where it is an extract of it: see `extractOf`. */
export const EXTRACT = 128;

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
    case "extract": {
      const { totalElements, decimation, step, elements } = data.value;
      const { kind, heap = new Uint8Array() } = datumOf(elements);
      const whole = new Uint8Array(16 + heap.length);
      const view = new DataView(whole.buffer);
      view.setBigUint64(0, totalElements, true);
      view.setUint32(8, decimation, true);
      view.setUint32(12, step, true);
      whole.set(heap, 16);
      return { kind: kind + EXTRACT, bits: 0n, heap: whole, label: "" };
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

/** Some elements of an array, where a watch limits them: not the array. */
export interface Extract {
  /** Number of elements of the whole array. */
  readonly total: number;
  readonly decimation: ArrayDecimation;
  readonly step: number;
  /** The elements that came, as an array. */
  readonly elements: Datum;
}

/** What an extract says of itself; undefined of everything else. */
export function extractOf({ kind, heap }: Datum): Extract | undefined {
  if (kind < EXTRACT || heap === undefined) return undefined;
  const view = new DataView(heap.buffer, heap.byteOffset, heap.byteLength);
  return {
    total: Number(view.getBigUint64(0, true)),
    decimation: view.getUint32(8, true),
    step: view.getUint32(12, true),
    elements: { kind: kind - EXTRACT, bits: 0n, heap: heap.subarray(16), label: "" },
  };
}

/** An array of numbers as points of a plot: places in the array, and elements. Of an extract those that came. */
export function pointsOf(datum: Datum): [number[], number[]] {
  const extract = extractOf(datum);
  const values = Array.from(elementsOf(extract?.elements ?? datum), Number);
  const step = extract?.step ?? 1;
  // least and greatest of a step are drawn side by side
  const width = extract?.decimation === ArrayDecimation.MIN_MAX ? step / 2 : step;
  return [values.map((_, index) => index * width), values];
}

/** The elements of an array; none of a scalar, and none of an extract, which is no array. */
export function elementsOf(datum: Datum): ArrayLike<number | bigint | string> {
  if (datum.kind < ARRAY || datum.kind >= EXTRACT || datum.heap === undefined) return [];
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

function extractText({ total, decimation, elements }: Extract, display: Display): string {
  const kind = elements.kind - ARRAY;
  const came = elementsOf(elements);
  if (decimation !== ArrayDecimation.MIN_MAX) return `${total} × [${elementText(came[0]!, kind, display)}, …]`;
  const numbers = Array.from(came, Number).filter((each) => !Number.isNaN(each));
  const [least, greatest] = [Math.min(...numbers), Math.max(...numbers)];
  if (numbers.length === 0) return `${total} × [NaN, …]`;
  return `${total} × from ${elementText(least, kind, display)} to ${elementText(greatest, kind, display)}`;
}

/** A value for people. Empty: there is none. */
export function datumText(datum: Datum, display: Display = {}): string {
  const { kind } = datum;
  if (kind === Kind.None) return "";
  const extract = extractOf(datum);
  if (extract !== undefined) return extractText(extract, display);
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
