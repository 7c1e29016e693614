import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ARRAY, Kind } from "@drey/client";
import { PlanSpecSchema } from "../gen/drey/restore/v1/restore_pb";
import { FieldError } from "../src/page/use_call";
import { EMPTY_DRAFT, ruleWords, specOf, typedValue, type PlanDraft } from "../src/page/plan_draft";

const nothing = () => undefined;
const spec = (change: Partial<PlanDraft>, names: readonly string[] = []) => create(PlanSpecSchema, specOf({ ...EMPTY_DRAFT, ...change }, names, nothing));

test("nothing filled in asks for all of the source, under no rules", () => {
  const empty = spec({});
  expect(empty).toMatchObject({ edits: [], guards: [], gates: [] });
  expect([empty.selector, empty.rollback, empty.lifetime]).toEqual([undefined, undefined, undefined]);
  expect(ruleWords(empty)).toEqual([]);
});

test("chosen names win over globs, and what is left out is left out of all", () => {
  expect(spec({ globs: "A:*" }, ["B", "C"]).selector).toMatchObject({ all: false, names: ["B", "C"], globs: [] });
  expect(spec({ leftOut: "M:*, N" }).selector).toMatchObject({ all: true, excluding: { globs: ["M:*", "N"] } });
});

test("all rules are asked for, and told in words", () => {
  const whole = spec({
    edits: [
      { names: "A, B:*", how: "value", text: "1.5" },
      { names: "C", how: "offset", text: "-2" },
    ],
    guards: [{ expression: 'pv["X"] < 1', description: "no beam" }],
    gates: [
      { stage: "1", how: "failed", text: "" },
      { stage: "2", how: "holds", text: 'pv["Y"] == "MD"' },
    ],
    backAfter: "0",
    backOnGuard: true,
    minutes: "2.5",
  });
  expect(whole.edits[0]!.selector).toMatchObject({ names: ["A"], globs: ["B:*"] });
  expect(whole.rollback).toMatchObject({ maxFailed: 0, onGuard: true });
  expect(ruleWords(whole)).toEqual([
    ["Edit", "A, B:*: 1.5 instead of the stored value"],
    ["Edit", "C: the stored value × 1 + -2"],
    ["While it writes", 'pv["X"] < 1 (no beam)'],
    ["After stage 1", "at most 0 writes not verified"],
    ["After stage 2", 'pv["Y"] == "MD"'],
    ["Goes back on its own", "after more than 0 failures, or when a guard fails"],
    ["May be executed for", "2.5 min"],
  ]);
});

test.each<[string, number, readonly string[] | undefined, unknown]>([
  ["12", Kind.String, undefined, { case: "stringValue", value: "12" }],
  ["ON", Kind.Enum, ["OFF", "ON"], { case: "stringValue", value: "ON" }],
  ["1", Kind.Enum, ["OFF", "ON"], { case: "enumValue", value: { index: 1 } }],
  ["1", Kind.Enum, ["0", "1"], { case: "stringValue", value: "1" }],
  ["1e-3", Kind.Float64, undefined, { case: "float64Value", value: 0.001 }],
  ["9223372036854775807", Kind.Int64, undefined, { case: "int64Value", value: 9223372036854775807n }],
  ["1 2,3", Kind.Float32 + ARRAY, undefined, { case: "float64Array", value: { elements: [1, 2, 3] } }],
  ["ON", Kind.None, undefined, { case: "stringValue", value: "ON" }],
])("%s for a channel of kind %i", (text, kind, labels, wanted) => {
  expect(typedValue(text, { kind, labels }, "spec.edits[0].value")).toEqual(wanted);
});

test.each<[Partial<PlanDraft>, string]>([
  [{ edits: [{ names: " ", how: "value", text: "1" }] }, "spec.edits[0].selector"],
  [{ edits: [{ names: "A", how: "value", text: "" }] }, "spec.edits[0].value"],
  [{ edits: [{ names: "A", how: "scale", text: "two" }] }, "spec.edits[0].linear.scale"],
  [{ gates: [{ stage: "x", how: "failed", text: "" }] }, "spec.gates[0].after_stage"],
  [{ backAfter: "1.5" }, "spec.rollback.max_failed"],
])("%o is refused at its field", (change, field) => {
  const refused = () => spec(change);
  expect(refused).toThrow(FieldError);
  expect(refused).toThrow(expect.objectContaining({ field }));
});
