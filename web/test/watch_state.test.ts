import { expect, test } from "vitest";
import { datumText, numberOf, READBACK, SETPOINT, WatchState } from "@drey/client";
import { baseline, begin, checkpoint, diff, end, float, said } from "./messages";

function held(): WatchState {
  const state = new WatchState();
  for (const message of [
    begin(),
    baseline([
      { pv: 7, bits: float(1.5) },
      { pv: 7, role: 2, bits: float(1.4) },
      { pv: 9, bits: float(-2) },
    ]),
    end("one"),
  ])
    state.apply(message);
  return state;
}

const number = (state: WatchState, pv: number, role = SETPOINT) => numberOf(state.datum(state.slotOf(pv)!, role));

test("a baseline, then a diff", () => {
  const state = held();
  expect(state.size).toBe(2);
  expect(number(state, 7, READBACK)).toBe(1.4);
  expect(state.hasChannel(state.slotOf(9)!, READBACK)).toBe(false);
  state.apply(diff([{ pv: 7, role: 2, bits: float(1.6) }]));
  expect(number(state, 7, READBACK)).toBe(1.6);
  expect(number(state, 7)).toBe(1.5);
});

test("the token is that of the last checkpoint", () => {
  const state = held();
  expect(state.token).toBe("one");
  state.apply(checkpoint("two"));
  expect(state.token).toBe("two");
});

test("a whole baseline drops what it does not name", () => {
  const state = held();
  for (const message of [begin(), baseline([{ pv: 7, bits: float(3) }]), end("three")]) state.apply(message);
  expect(state.size).toBe(1);
  expect(state.slotOf(9)).toBeUndefined();
  expect(state.hasChannel(state.slotOf(7)!, READBACK)).toBe(false);
});

test("a baseline that keeps the state drops nothing", () => {
  const state = held();
  for (const message of [begin(true), baseline([{ pv: 9, bits: float(4) }]), end("four")]) state.apply(message);
  expect(number(state, 7)).toBe(1.5);
  expect(number(state, 9)).toBe(4);
});

test("a whole baseline that is cut leaves no token, one that keeps the state leaves the old one", () => {
  const whole = held();
  whole.apply(begin());
  whole.apply(checkpoint("between"));
  whole.beginStream();
  expect(whole.token).toBe("");
  const kept = held();
  kept.apply(begin(true));
  kept.beginStream();
  expect(kept.token).toBe("one");
});

test("an array in parts is shown when it is whole", () => {
  const state = held();
  const bits = 16n << 32n;
  const doubles = new Uint8Array(new Float64Array([1, 2]).buffer);
  const part = (first: number) =>
    diff([{ pv: 7, type: 11 + 64, bits }], {
      heap: doubles.slice(first, first + 8),
      part: { firstElement: BigInt(first), totalElements: 16n },
    });
  state.apply(part(0));
  state.apply(part(8));
  expect(datumText(state.datum(state.slotOf(7)!, SETPOINT))).toBe("2 × [1, 2]");
  state.apply(part(0));
  state.beginStream();
  expect(() => state.apply(part(8))).toThrow("does not follow");
});

test("until an array in parts is whole, the value before is shown, of its own type", () => {
  const state = held();
  const part = (first: number) =>
    diff([{ pv: 7, type: 11 + 64, severity: 3, bits: 16n << 32n }], {
      heap: new Uint8Array(new Float64Array([1, 2]).buffer).slice(first, first + 8),
      part: { firstElement: BigInt(first), totalElements: 16n },
    });
  const slot = state.slotOf(7)!;
  const [before, severity] = [datumText(state.datum(slot, SETPOINT)), state.severities[2 * slot]];
  state.apply(part(0));
  expect([datumText(state.datum(slot, SETPOINT)), state.severities[2 * slot]]).toEqual([before, severity]);
  state.apply(part(8));
  expect([datumText(state.datum(slot, SETPOINT)), state.severities[2 * slot]]).toEqual(["2 × [1, 2]", 3]);
});

test("staleness is told without a value", () => {
  const state = held();
  state.apply(said({ case: "freshness", value: { freshness: 2, pvNumbers: ["9"], reason: "monitor of shard 0 is silent" } }));
  expect(state.freshness[2 * state.slotOf(9)!]).toBe(2);
  expect(state.freshness[2 * state.slotOf(7)!]).toBe(1);
  expect(state.staleReason).toContain("silent");
  state.apply(said({ case: "freshness", value: { freshness: 1, all: true } }));
  expect(state.freshness[2 * state.slotOf(9)!]).toBe(1);
  expect(state.staleReason).toBe("");
});

test("a PV that leaves gives its slot to the next one, and nothing of its value", () => {
  const state = held();
  const slot = state.slotOf(9)!;
  state.apply(said({ case: "left", value: { pvs: [{ number: "9", name: "B", reason: 1 }] } }));
  expect(state.slotOf(9)).toBeUndefined();
  state.apply(diff([{ pv: 11, role: 2, bits: float(5) }]));
  expect(state.slotOf(11)).toBe(slot);
  expect(state.hasChannel(slot, SETPOINT)).toBe(false);
});

test("more PVs than there was room for", () => {
  const state = new WatchState();
  const entries = Array.from({ length: 5000 }, (_, index) => ({ pv: index + 1, bits: float(index) }));
  for (const message of [begin(), baseline(entries.slice(0, 2500)), baseline(entries.slice(2500)), end("t")]) state.apply(message);
  expect(state.size).toBe(5000);
  expect(number(state, 5000)).toBe(4999);
});
