import { Code, ConnectError } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { DriftRowSchema, WatchDriftResponseSchema, type WatchPvsResponse } from "../gen/drey/monitor/v1/monitor_service_pb";
import { DriftWatch, Watch } from "../src/client/watch";
import { baseline, begin, checkpoint, diff, end, float } from "./messages";

type DriftPart = NonNullable<MessageInitShape<typeof WatchDriftResponseSchema>["part"]>;

const QUICK = { longestPauseMs: 1, silenceMs: 50 };

/** A server that answers each call by the next script; "hang" says nothing more. */
function server(scripts: (WatchPvsResponse | Error | "hang")[][]) {
  const tokens: string[] = [];
  const open = async function* (request: { token: string }, signal: AbortSignal) {
    tokens.push(request.token);
    for (const step of scripts.shift() ?? ["hang" as const]) {
      if (step instanceof Error) throw step;
      if (step === "hang") await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
      else yield step;
    }
  };
  return { open, tokens };
}

const FIRST = [begin(), baseline([{ pv: 1, bits: float(1) }]), end("a"), checkpoint("b")];

test("goes on from its token after a cut", async () => {
  const { open, tokens } = server([[...FIRST, new ConnectError("gone", Code.Unavailable)], [begin(true), end("c"), checkpoint("d")]]);
  const stop = new AbortController();
  const watch = new Watch(open, {}, { ...QUICK, signal: stop.signal });
  const seen = new Set<string>();
  for await (const { connection, state } of watch) {
    seen.add(connection);
    if (state.token === "d") stop.abort();
  }
  expect(tokens).toEqual(["", "b"]);
  expect([...seen]).toEqual(["connecting", "live", "lost"].filter((each) => seen.has(each)));
  expect(seen).toContain("lost");
  expect(watch.state.size).toBe(1);
});

test("notices a gateway that stands still", async () => {
  const { open, tokens } = server([[...FIRST, "hang"], [...FIRST, checkpoint("z")]]);
  const stop = new AbortController();
  let trouble = "";
  for await (const watch of new Watch(open, {}, { ...QUICK, signal: stop.signal })) {
    if (watch.connection === "lost") trouble = watch.trouble;
    if (watch.state.token === "z") stop.abort();
  }
  expect(trouble).toContain("said nothing");
  expect(tokens).toEqual(["", "b"]);
});

test("tells that the gateway is stalled", async () => {
  const { open } = server([[...FIRST, checkpoint("c", true), checkpoint("d")]]);
  const stop = new AbortController();
  const seen: string[] = [];
  for await (const { connection, state } of new Watch(open, {}, { ...QUICK, signal: stop.signal })) {
    seen.push(connection);
    if (state.token === "d") stop.abort();
  }
  expect(seen.slice(-2)).toEqual(["stalled", "live"]);
});

test("raises what no waiting mends", async () => {
  const { open, tokens } = server([[new ConnectError("no key", Code.Unauthenticated)]]);
  const watch = new Watch(open, {}, QUICK);
  await expect(async () => {
    for await (const _ of watch);
  }).rejects.toThrow("no key");
  expect(watch.connection).toBe("ended");
  expect(tokens).toHaveLength(1);
});

test("asks for nothing older after a cut in the middle of diffs", async () => {
  const { open, tokens } = server([
    [...FIRST, diff([{ pv: 1, bits: float(2) }]), new ConnectError("cut", Code.Unknown)],
    [begin(true), baseline([{ pv: 1, bits: float(2) }]), end("c")],
  ]);
  const stop = new AbortController();
  for await (const { state } of new Watch(open, {}, { ...QUICK, signal: stop.signal })) if (state.token === "c") stop.abort();
  expect(tokens).toEqual(["", "b"]);
});

test("a watch of drift folds what enters, changes and leaves, and goes on from its token", async () => {
  const row = (number: string, deviation: number) => create(DriftRowSchema, { live: { number, name: `PV${number}` }, deviation, different: true });
  const scripts: DriftPart[][] = [
    [
      { case: "baselineBegin", value: { pvCount: 3, snapshotId: "s" } },
      { case: "baseline", value: { rows: [row("1", 2), row("2", 3)] } },
      { case: "summary", value: { different: 2, same: 1, compared: 3 } },
      { case: "baselineEnd", value: { token: "a" } },
      { case: "changed", value: { rows: [row("1", 5), row("3", 4)], left: ["2"], merged: 7n } },
      { case: "checkpoint", value: { token: "b" } },
    ],
    [
      { case: "baselineBegin", value: { pvCount: 3, keepsState: true } },
      { case: "changed", value: { rows: [], left: ["3"] } },
      { case: "freshness", value: { freshness: 2, all: true, reason: "silent" } },
      { case: "baselineEnd", value: { token: "c" } },
    ],
  ];
  const tokens: string[] = [];
  const open = async function* (request: { token: string }) {
    tokens.push(request.token);
    for (const part of scripts.shift() ?? []) yield create(WatchDriftResponseSchema, { part });
  };
  const stop = new AbortController();
  const watch = new DriftWatch(open, {}, { ...QUICK, signal: stop.signal });
  for await (const { state } of watch) if (state.token === "c") stop.abort();
  expect(tokens.slice(0, 2)).toEqual(["", "b"]);
  expect([...watch.state.rows.keys()]).toEqual(["1"]);
  expect(watch.state.rows.get("1")!.deviation).toBe(5);
  expect(watch.state.merged).toBe(7n);
  expect(watch.state.staleReason).toBe("silent");
});
