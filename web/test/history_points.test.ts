import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ConnectionState, ValueSchema, type Value } from "../gen/drey/common/v1/value_pb";
import { GetPvHistoryResponseSchema, type GetPvHistoryResponse } from "../gen/drey/snapshot/v1/snapshot_service_pb";
import { historyColumns, isMissing, readHistory } from "../src/page/history_points";
import { valueText } from "../src/page/words";

const CONNECTED = ConnectionState.CONNECTED;

function value(data: Value["data"], state = CONNECTED): Value {
  return create(ValueSchema, { data, state });
}

const number = (of: number, state = CONNECTED) => value({ case: "float64Value", value: of }, state);
const nothing = () => value({ case: undefined } as Value["data"], ConnectionState.NEVER_CONNECTED);

/** Newest first, one second between two. */
async function* answers(...rows: { id: string; setpoint?: Value; readback?: Value }[]): AsyncGenerator<GetPvHistoryResponse> {
  let seconds = 100n;
  for (const { id, ...row } of rows)
    yield create(GetPvHistoryResponseSchema, { points: [{ snapshotId: id, timeNs: --seconds * 1_000_000_000n, row: { name: "PV", ...row } }] });
}

const read = (most: number, ...rows: Parameters<typeof answers>) => readHistory(answers(...rows), most, (each) => valueText(each));

test("where the PV was missing, disconnected or no number, there is a gap", async () => {
  const { entries, isCut } = await read(
    9,
    { id: "e", setpoint: number(5), readback: number(50) },
    { id: "d", setpoint: nothing() },
    { id: "c", setpoint: number(3, ConnectionState.DISCONNECTED) },
    { id: "b", setpoint: number(NaN) },
    { id: "a", setpoint: number(1), readback: number(10) },
  );
  expect(isCut).toBe(false);
  expect(historyColumns(entries)).toEqual([
    [95, 96, 97, 98, 99],
    [1, null, null, null, 5],
    [10, null, null, null, 50],
  ]);
  expect(entries.filter(isMissing).map(({ snapshotId }) => snapshotId)).toEqual(["d", "c"]);
  expect(entries.map(({ setpoint }) => setpoint?.text)).toEqual(["5", "never found", "3 (disconnected)", "NaN", "1"]);
});

test("a value in parts is one, and no number", async () => {
  const part = (...elements: number[]) => value({ case: "float64Array", value: { elements } as never });
  const { entries } = await read(9, { id: "b", readback: part(1, 2) }, { id: "b", readback: part(3) }, { id: "a", readback: part(4) });
  expect(entries.map(({ readback }) => readback)).toEqual([
    { text: "3 × [1, 2, 3]", number: null },
    { text: "1 × [4]", number: null },
  ]);
});

test.each([
  [1, ["b"], true],
  [2, ["b", "a"], false],
])("of two snapshots at most %i are read", async (most, ids, isCut) => {
  const history = await read(most, { id: "b", setpoint: number(2) }, { id: "a", setpoint: number(1) });
  expect(history.entries.map(({ snapshotId }) => snapshotId)).toEqual(ids);
  expect(history.isCut).toBe(isCut);
});
