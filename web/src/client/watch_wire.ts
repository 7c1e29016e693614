/**
 * Messages of a watch as they come. Metadata is most of what comes at its begin, and of 40,000 PVs some
 * hundred are looked at: it is kept as bytes, and read by `WatchState.metadataOf`.
 */
import { fromBinary, type DescMethodServerStreaming } from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { EmptySchema, type Empty } from "@bufbuild/protobuf/wkt";
import type { Transport } from "@connectrpc/connect";
import type { ChannelMetadata } from "../../gen/drey/common/v1/value_pb";
import { MonitorService, WatchPvsResponseSchema, type WatchPvsRequest, type WatchPvsResponse } from "../../gen/drey/monitor/v1/monitor_service_pb";
import { MetadataChunkSchema, MetadataRowSchema } from "../../gen/drey/monitor/v1/watch_pb";

/** `MetadataRow`, its channels read or yet to be read. */
export interface HeldMetadataRow {
  readonly number: string | number;
  readonly name: string;
  readonly setpoint?: ChannelMetadata | Uint8Array | undefined;
  readonly readback?: ChannelMetadata | Uint8Array | undefined;
}

type Part = WatchPvsResponse["part"];

/** `WatchPvsResponse`, in which metadata need not be read yet. */
export interface WatchMessage {
  readonly part: Exclude<Part, { case: "metadata" }> | { readonly case: "metadata"; readonly value: { readonly rows: readonly HeldMetadataRow[] } };
}

/** WatchPvs, whose answers are read here: each of their fields is unknown to an empty message, and kept as it is. */
const WATCH = { ...MonitorService.method.watchPvs, output: EmptySchema } as DescMethodServerStreaming<
  (typeof MonitorService.method.watchPvs)["input"],
  typeof EmptySchema
>;
const ROWS = MetadataChunkSchema.field.rows.number;
const { number: NUMBER, name: NAME, setpoint: SETPOINT, readback: READBACK } = MetadataRowSchema.field;

export async function* openWatch(transport: Transport, request: WatchPvsRequest, signal: AbortSignal): AsyncIterable<WatchMessage> {
  const response = await transport.stream(WATCH, signal, undefined, undefined, only(request));
  for await (const message of response.message) yield readWatchMessage(message);
}

async function* only<T>(value: T): AsyncIterable<T> {
  yield value;
}

export function readWatchMessage(message: Empty): WatchMessage {
  const found = message.$unknown?.at(-1);
  const field = WatchPvsResponseSchema.fields.find(({ number }) => number === found?.no);
  if (found === undefined || field?.fieldKind !== "message") return { part: { case: undefined } };
  const bytes = new BinaryReader(found.data).bytes();
  if (field.localName === "metadata") return { part: { case: "metadata", value: { rows: readRows(bytes) } } };
  return { part: { case: field.localName, value: fromBinary(field.message, bytes) } as Exclude<Part, { case: "metadata" }> };
}

function readRows(bytes: Uint8Array): HeldMetadataRow[] {
  const rows: HeldMetadataRow[] = [];
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field === ROWS && wireType === WireType.LengthDelimited) rows.push(readRow(reader.bytes()));
    else reader.skip(wireType, field);
  }
  return rows;
}

function readRow(bytes: Uint8Array): HeldMetadataRow {
  const reader = new BinaryReader(bytes);
  const row = { number: 0, name: "", setpoint: undefined as Uint8Array | undefined, readback: undefined as Uint8Array | undefined };
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field === NUMBER.number) row.number = Number(reader.fixed64());
    else if (field === NAME.number) row.name = reader.string();
    else if (field === SETPOINT.number) row.setpoint = reader.bytes();
    else if (field === READBACK.number) row.readback = reader.bytes();
    else reader.skip(wireType, field);
  }
  return row;
}
