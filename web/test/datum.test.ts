import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { datumOf, datumText, elementsOf, extractOf, joinRows, numberOf, numberText, pointsOf } from "@drey/client";
import { ArrayDecimation, PvRowSchema, ValueSchema, type PvRow, type Value } from "../gen/drey/common/v1/value_pb";

const value = (data: Value["data"]) => create(ValueSchema, { data });

test.each<[Value["data"], string]>([
  [{ case: "float64Value", value: NaN }, "NaN"],
  [{ case: "float64Value", value: -0 }, "-0"],
  [{ case: "float64Value", value: Infinity }, "Infinity"],
  [{ case: "float32Value", value: Math.fround(0.1) }, "0.1"],
  [{ case: "int8Value", value: -5 }, "-5"],
  [{ case: "int64Value", value: -9007199254740993n }, "-9007199254740993"],
  [{ case: "uint64Value", value: 18446744073709551615n }, "18446744073709551615"],
  [{ case: "boolValue", value: true }, "true"],
  [{ case: "stringValue", value: "Größe 中文" }, "Größe 中文"],
  [{ case: "rawStringValue", value: new Uint8Array([65, 255]) }, "A\ufffd"],
  [{ case: "stringValue", value: "" }, ""],
])("%o is %s", (data, text) => {
  expect(datumText(datumOf(value(data)))).toBe(text);
});

test("numbers keep their sign and size", () => {
  expect(numberOf(datumOf(value({ case: "int32Value", value: -7 })))).toBe(-7);
  expect(Object.is(numberOf(datumOf(value({ case: "float64Value", value: -0 }))), -0)).toBe(true);
  expect(numberOf(datumOf(value({ case: "float32Value", value: 1.5 })))).toBe(1.5);
});

test("precision shows neither a value as nothing nor a wall of digits", () => {
  expect(numberText(1.23456, 2)).toBe("1.23");
  expect(numberText(0.0001, 2)).toBe("1.000e-4");
  expect(numberText(1e12, 2)).toBe("1.000e+12");
  expect(numberText(12.7, 0)).toBe("13");
  expect(numberText(0, 3)).toBe("0.000");
});

const { FIRST, STRIDE, MIN_MAX } = ArrayDecimation;

test.each<[ArrayDecimation, number, number[], string, number[]]>([
  [FIRST, 1, [3, 4], "900 × [3, …]", [0, 1]],
  [STRIDE, 450, [3, 4], "900 × [3, …]", [0, 450]],
  [MIN_MAX, 450, [-2, 7, NaN, NaN], "900 × from -2 to 7", [0, 225, 450, 675]],
  [MIN_MAX, 900, [NaN, NaN], "900 × [NaN, …]", [0, 450]],
])("an extract is not the array: %s", (decimation, step, elements, text, places) => {
  const inner = value({ case: "float64Array", value: { elements } as never });
  const datum = datumOf(value({ case: "extract", value: { totalElements: 900n, decimation, step, elements: inner } as never }));
  expect(elementsOf(datum)).toHaveLength(0);
  expect(numberOf(datum)).toBeNaN();
  expect(extractOf(datum)).toMatchObject({ total: 900, decimation, step });
  expect(datumText(datum)).toBe(text);
  expect(pointsOf(datum)).toEqual([places, elements]);
});

test("the points of an array", () => {
  const datum = datumOf(value({ case: "int16Array", value: { elements: [5, -5] } as never }));
  expect(extractOf(datum)).toBeUndefined();
  expect(pointsOf(datum)).toEqual([[0, 1], [5, -5]]);
});

test("an array of strings", () => {
  const datum = datumOf(create(ValueSchema, { data: { case: "stringArray", value: { elements: ["a", "", "é"] } } as never }));
  expect([...(elementsOf(datum) as string[])]).toEqual(["a", "", "é"]);
});

test("parts of a large value are joined", () => {
  const row = (elements: number[]): PvRow =>
    create(PvRowSchema, { number: "4", setpoint: { data: { case: "float64Array", value: { elements } } } });
  const held: PvRow[] = [];
  joinRows(held, [row([1, 2]), row([3])], ["setpoint", "readback"]);
  expect(held).toHaveLength(1);
  expect(datumText(datumOf(held[0]!.setpoint))).toBe("3 × [1, 2, 3]");
});
