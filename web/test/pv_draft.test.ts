import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { Completion, PvSchema } from "../gen/drey/catalog/v1/catalog_pb";
import { mergeDraft } from "../src/page/draft";
import { draftOf, updateOf, type PvDraft } from "../src/page/pv_draft";
import { FieldError } from "../src/page/use_call";

const pv = create(PvSchema, {
  id: "1",
  etag: "e1",
  description: "Größe",
  tags: [{ group: "Area", tag: "LI21" }],
  setpoint: { address: "A", tolerance: { absolute: 0.5, relative: 0 } },
  restorePolicy: { completion: Completion.SENT, stage: 2, rampStep: 0.5 },
});
const base = draftOf(pv);
const edited = (change: Partial<PvDraft>): PvDraft => ({ ...base, ...change });

test("an update names what was changed, and the state that it was changed from", () => {
  const { pv: sent, updateMask } = updateOf(pv, edited({ description: "été", tags: "Area: LI21\n\n System :  Main: ring " }));
  expect(updateMask.paths).toEqual(["description", "tags"]);
  expect(sent).toMatchObject({ id: "1", etag: "e1", description: "été" });
  expect(sent.tags).toEqual([
    { group: "Area", tag: "LI21" },
    { group: "System", tag: "Main: ring" },
  ]);
});

test("what is not edited of a policy stays, what is emptied goes", () => {
  const { pv: sent, updateMask } = updateOf(pv, edited({ stage: "", rampRate: "2.5", allowedLow: "-1", allowedHigh: "0" }));
  expect(updateMask.paths).toEqual(["restore_policy"]);
  expect(sent.restorePolicy).toMatchObject({ completion: Completion.SENT, rampStep: 0.5, rampRate: 2.5, allowed: { low: -1, high: 0 } });
  expect(sent.restorePolicy?.stage).toBeUndefined();
});

test.each<[Partial<PvDraft>, string]>([
  [{ tags: "LI21" }, "pv.tags"],
  [{ setpointAbsolute: "a lot" }, "pv.setpoint.tolerance.absolute"],
  [{ stage: "1.5" }, "pv.restore_policy.stage"],
  [{ allowedHigh: "much" }, "pv.restore_policy.allowed_high"],
  [{ timeout: "soon" }, "pv.restore_policy.timeout"],
  [{ rampRate: "Infinity" }, "pv.restore_policy.ramp_rate"],
])("%o is refused at its field", (change, field) => {
  const refused = () => updateOf(pv, edited(change));
  expect(refused).toThrow(FieldError);
  expect(refused).toThrow(expect.objectContaining({ field }));
});

test("a range may have one end, a time parts of a second, and a completion its channel", () => {
  const { restorePolicy } = updateOf(pv, edited({ completion: "DONE_CHANNEL", doneChannel: " .DMOV ", timeout: "1.5", allowedLow: "0" })).pv;
  expect(restorePolicy).toMatchObject({
    completion: Completion.DONE_CHANNEL,
    doneChannel: ".DMOV",
    timeout: { seconds: 1n, nanos: 500_000_000 },
    allowed: { low: 0, high: Infinity },
  });
  const read = draftOf(create(PvSchema, { restorePolicy: restorePolicy! }));
  expect(read).toMatchObject({ completion: "DONE_CHANNEL", timeout: "1.5", allowedLow: "0", allowedHigh: "", doneValue: "" });
});

test("theirs and mine are put together, and a field of both is told", () => {
  const typed = edited({ description: "mine", device: "D1", stage: "3" });
  const now = edited({ description: "theirs", readOnly: "yes", stage: "3" });
  expect(mergeDraft(base, typed, now)).toEqual({
    draft: edited({ description: "mine", device: "D1", stage: "3", readOnly: "yes" }),
    conflicts: ["description"],
  });
});
