import { readFileSync } from "node:fs";
import { fromJson, type JsonValue } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { planDigest } from "@drey/client";
import { PlanItemSchema, PlanSchema, type PlanItem } from "../gen/drey/restore/v1/restore_pb";

// read as it stands: a bundler would make 0 of -0
const golden = JSON.parse(readFileSync(new URL("plan.json", import.meta.url), "utf8")) as { plan: JsonValue; items: JsonValue[] };

// every type of value, and what of a plan may be absent; the command computes the same of it
const plan = fromJson(PlanSchema, golden.plan);
const read = () => golden.items.map((item) => fromJson(PlanItemSchema, item));

test("the digest of a plan is that of the other languages, in any order of its items", async () => {
  expect(await planDigest(plan, read())).toBe(plan.digest);
  expect(await planDigest(plan, read().reverse())).toBe(plan.digest);
});

test.each<[string, (item: PlanItem) => void]>([
  ["another value", (item) => (item.target!.data = { case: "float64Value", value: 1 })],
  ["another address", (item) => (item.address += "x")],
  ["another reason", (item) => (item.skip += 1)],
  ["another source", (item) => (item.policySources[0]!.policyField += "x")],
  ["another record", (item) => (item.record += "x")],
  ["another warning", (item) => item.warnings.push("")],
])("%s has another digest", async (_, change) => {
  const items = read();
  change(items[0]!);
  expect(await planDigest(plan, items)).not.toBe(plan.digest);
});

test("a recipe that is not known is refused", async () => {
  await expect(planDigest({ ...plan, digestRecipe: 1 }, read())).rejects.toThrow("recipe 1");
});
