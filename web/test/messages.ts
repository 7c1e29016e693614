/** Messages as a gateway sends them, for tests. */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { ValueColumnsSchema, type ValueColumns } from "../gen/drey/common/v1/value_pb";
import { WatchPvsResponseSchema, type WatchPvsResponse } from "../gen/drey/monitor/v1/monitor_service_pb";

type Part = NonNullable<MessageInitShape<typeof WatchPvsResponseSchema>["part"]>;

export function said(part: Part): WatchPvsResponse {
  return create(WatchPvsResponseSchema, { part });
}

export interface Entry {
  readonly pv: number;
  readonly role?: number;
  readonly type?: number;
  readonly state?: number;
  readonly severity?: number;
  readonly bits?: bigint;
}

export function float(number: number): bigint {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, number);
  return view.getBigUint64(0);
}

const bytes = (array: BigInt64Array | BigUint64Array | Uint16Array) => new Uint8Array(array.buffer as ArrayBuffer);

export function columns(entries: readonly Entry[], more: MessageInitShape<typeof ValueColumnsSchema> = {}): ValueColumns {
  const each = <T>(get: (entry: Entry) => T) => entries.map(get);
  return create(ValueColumnsSchema, {
    pvNumbers: bytes(BigInt64Array.from(each((e) => BigInt(e.pv)))),
    channels: bytes(BigInt64Array.from(each((e) => BigInt(e.pv)))),
    roles: Uint8Array.from(each((e) => e.role ?? 1)),
    types: Uint8Array.from(each((e) => e.type ?? 11)),
    states: Uint8Array.from(each((e) => e.state ?? 3)),
    origins: Uint8Array.from(each(() => 1)),
    freshness: Uint8Array.from(each(() => 1)),
    severities: Uint8Array.from(each((e) => e.severity ?? 1)),
    statuses: bytes(Uint16Array.from(each(() => 1))),
    sourceTimes: bytes(BigInt64Array.from(each(() => 1n))),
    receiveTimes: bytes(BigInt64Array.from(each(() => 1n))),
    data: bytes(BigUint64Array.from(each((e) => e.bits ?? 0n))),
    ...more,
  });
}

export const begin = (keepsState = false) => said({ case: "baselineBegin", value: { keepsState } });
export const baseline = (entries: readonly Entry[]) => said({ case: "baseline", value: { columns: columns(entries) } });
export const end = (token: string) => said({ case: "baselineEnd", value: { token } });
export const diff = (entries: readonly Entry[], more: MessageInitShape<typeof ValueColumnsSchema> = {}) =>
  said({ case: "diff", value: { columns: columns(entries, more) } });
export const checkpoint = (token: string, stalled = false) => said({ case: "checkpoint", value: { token, stalled } });
