import { expect, test } from "vitest";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { EmptySchema } from "@bufbuild/protobuf/wkt";
import { createRouterTransport } from "@connectrpc/connect";
import { DreyClient, READBACK, SETPOINT, WatchState } from "@drey/client";
import { MonitorService, WatchPvsResponseSchema, type WatchPvsResponse } from "../gen/drey/monitor/v1/monitor_service_pb";
import { readWatchMessage } from "../src/client/watch_wire";
import { baseline, begin, checkpoint, diff, end, float, said } from "./messages";

const CHANNEL = { address: "Größe:été:夜班", units: "µA", precision: 3, enumLabels: ["Off", "On"], display: { low: -1, high: 1 } };
const METADATA = said({
  case: "metadata",
  value: { rows: [{ number: "7", name: "Größe", setpoint: CHANNEL }, { number: "9007199254740991", name: "B", readback: CHANNEL }] },
});

const MESSAGES = [
  begin(),
  METADATA,
  said({ case: "names", value: { notFound: ["X"] } }),
  baseline([{ pv: 7, bits: float(1.5) }]),
  end("one"),
  diff([{ pv: 7, bits: float(2.5) }]),
  said({ case: "freshness", value: { freshness: 2, all: true, reason: "silent" } }),
  said({ case: "left", value: { pvs: [{ number: "9007199254740991", name: "B", reason: 1 }] } }),
  said({ case: "resyncRequired", value: { reason: "old" } }),
  checkpoint("two"),
];

const read = (message: WatchPvsResponse) => readWatchMessage(fromBinary(EmptySchema, toBinary(WatchPvsResponseSchema, message)));

test("each message is read as it was sent", () => {
  for (const message of MESSAGES) if (message !== METADATA) expect(read(message).part).toEqual(message.part);
  expect(new Set(MESSAGES.map(({ part }) => part.case))).toEqual(new Set(WatchPvsResponseSchema.fields.map(({ localName }) => localName)));
});

test("one of a later edition is passed over", () => {
  const state = new WatchState();
  state.apply(readWatchMessage(fromBinary(EmptySchema, Uint8Array.of(0xa2, 0x06, 0x01, 0x00))));
  expect(state.version).toBe(0);
});

test("metadata is read when it is asked for, and goes with its PV", () => {
  const state = new WatchState();
  state.apply(read(METADATA));
  const slot = state.slotOf(7)!;
  expect(state.names[slot]).toBe("Größe");
  expect(state.metadataOf(slot, SETPOINT)).toMatchObject(CHANNEL);
  expect(state.metadataOf(slot, SETPOINT)).toBe(state.metadataOf(slot, SETPOINT));
  expect(state.metadataOf(slot, READBACK)).toBeUndefined();
  const other = state.slotOf("9007199254740991")!;
  expect(state.metadataOf(other, READBACK)).toMatchObject(CHANNEL);
  state.apply(said({ case: "left", value: { pvs: [{ number: "9007199254740991", name: "B", reason: 1 }] } }));
  expect(state.metadataOf(other, READBACK)).toBeUndefined();
});

test("a watch over a transport", async () => {
  const transport = createRouterTransport(({ service }) => {
    service(MonitorService, {
      async *watchPvs() {
        yield* MESSAGES.slice(0, 5);
      },
    });
  });
  const stop = new AbortController();
  const client = new DreyClient({ url: "http://127.0.0.1", key: "k", transport });
  for await (const { state } of client.watch({ selector: { all: true } }, { signal: stop.signal })) if (state.complete) stop.abort();
  expect(stop.signal.aborted).toBe(true);
});
