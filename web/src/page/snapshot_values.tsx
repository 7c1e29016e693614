/** The values of a snapshot, and a file of them. */
import { useMemo, useState } from "react";
import { toJson } from "@bufbuild/protobuf";
import { datumOf, joinRows, pointsOf } from "@drey/client";
import { setCell, setMark, type Column } from "./grid";
import { Plot } from "./lazy_plot";
import { displayOf, Fact, isPlottableArray } from "./pvs";
import { saveFile } from "./save_file";
import { useSession } from "./session";
import { go } from "./places";
import { FilteredGrid } from "./tables";
import { valuesCsv } from "./values_csv";
import { useAsked } from "./use_call";
import { alarmWords, channelMark, counted, graver, nanosecondsText, timeText, valueText } from "./words";
import { Freshness, PvRowSchema, type ChannelMetadata, type PvRow, type Value } from "../../gen/drey/common/v1/value_pb";
import { SnapshotSchema, type Snapshot } from "../../gen/drey/snapshot/v1/snapshot_pb";
import type { PvMetadata } from "../../gen/drey/snapshot/v1/snapshot_service_pb";

const COLUMNS: readonly Column[] = [
  { title: "State", width: "138px" },
  { title: "PV", width: "minmax(170px, 2fr)", className: "mono" },
  { title: "Setpoint", width: "minmax(110px, 1.2fr)", className: "value right" },
  { title: "Readback", width: "minmax(110px, 1.2fr)", className: "value right" },
  { title: "Unit", width: "60px" },
  { title: "Time at the IOC", width: "minmax(120px, 1.5fr)" },
  { title: "Device", width: "minmax(80px, 1fr)" },
];

interface Values {
  readonly rows: readonly PvRow[];
  readonly metadata: ReadonlyMap<string, PvMetadata>;
}

const markOfValue = (value: Value | undefined) =>
  channelMark(value?.state ?? 0, Freshness.FRESH, Math.max(0, value?.severity ?? 0));

const NO_VALUES: Values = { rows: [], metadata: new Map() };

export function SnapshotValues({ snapshot }: { snapshot: Snapshot }) {
  const { client } = useSession();
  const [isMissingOnly, setMissingOnly] = useState(false);
  const asked = useAsked<Values>(`${snapshot.id} ${isMissingOnly}`, async (signal) => {
    const rows: PvRow[] = [];
    const metadata = new Map<string, PvMetadata>();
    const request = { id: snapshot.id, withMetadata: true, onlyMissing: isMissingOnly };
    for await (const { part } of client.snapshot.readSnapshot(request, { signal })) {
      if (part.case === "rows") joinRows(rows, part.value.rows, ["setpoint", "readback"]);
      else if (part.case === "metadata") for (const pv of part.value.pvs) metadata.set(pv.number, pv);
    }
    return { rows, metadata };
  });
  const { rows, metadata } = asked.answer ?? NO_VALUES;
  const draw = (row: PvRow, cells: HTMLElement[]) => {
    const pv = metadata.get(row.number);
    const mark = graver(markOfValue(row.setpoint), markOfValue(row.readback));
    setMark(cells[0]!, mark.word, mark.look);
    setCell(cells[1]!, row.name, "", row.name);
    setCell(cells[2]!, row.setpoint === undefined ? "" : valueText(row.setpoint, displayOf(pv?.setpoint)));
    setCell(cells[3]!, row.readback === undefined ? "" : valueText(row.readback, displayOf(pv?.readback)));
    setCell(cells[4]!, pv?.setpoint?.units || pv?.readback?.units || "");
    setCell(cells[5]!, nanosecondsText(row.readback?.sourceTimeNs ?? row.setpoint?.sourceTimeNs ?? 0n));
    setCell(cells[6]!, pv?.device ?? "");
  };
  return (
    <>
      <div className="bar">
        <button onClick={() => go("snapshots", snapshot.id)}>← Snapshots</button>
        <h1>
          Values of {snapshot.title || "a snapshot"} <span className="dim">taken {timeText(snapshot.takeTime)}</span>
        </h1>
      </div>
      <FilteredGrid
        label="Values of the snapshot"
        columns={COLUMNS}
        rows={rows}
        textOf={(row) => `${row.name} ${metadata.get(row.number)?.device ?? ""}`}
        draw={draw}
        details={(row, close) => <StoredPv row={row} metadata={metadata.get(row.number)} onClose={close} />}
        searchLabel="Search in the values"
        placeholder="Search name and device"
        error={asked.error}
        busy={asked.answer === undefined ? "Reading the values …" : ""}
        empty="Nothing passes the filters."
      >
        {(shown) => (
          <>
            <label>
              <input type="checkbox" checked={isMissingOnly} onChange={(event) => setMissingOnly(event.target.checked)} /> missing only
            </label>
            <button
              disabled={shown.length === 0}
              title="As `drey snapshot read --json`: the snapshot, then a line for each PV"
              onClick={() => saveLines(snapshot, shown)}
            >
              Export {counted(shown.length)} PVs as JSON lines
            </button>
            <button
              disabled={shown.length === 0}
              title="A line for each PV, numbers with all their digits"
              onClick={() => saveFile(new Blob([...valuesCsv(shown, metadata)], { type: "text/csv;charset=utf-8" }), `snapshot-${snapshot.id}.csv`)}
            >
              … as CSV
            </button>
          </>
        )}
      </FilteredGrid>
    </>
  );
}

/** One PV as it was stored: values with their times and alarms, arrays as plots. */
function StoredPv({ row, metadata, onClose }: { row: PvRow; metadata: PvMetadata | undefined; onClose: () => void }) {
  return (
    <aside className="panel side stack" aria-label={`Stored values of ${row.name}`}>
      <div className="bar">
        <h2 className="mono">{row.name}</h2>
        <span className="space" />
        <button aria-label="Close details" onClick={onClose}>
          ×
        </button>
      </div>
      {row.setpoint !== undefined && <StoredValue key={`${row.number} setpoint`} title="Setpoint" name={row.name} value={row.setpoint} metadata={metadata?.setpoint} />}
      {row.readback !== undefined && <StoredValue key={`${row.number} readback`} title="Readback" name={row.name} value={row.readback} metadata={metadata?.readback} />}
    </aside>
  );
}

interface StoredValueProps {
  readonly title: string;
  readonly name: string;
  readonly value: Value;
  readonly metadata: ChannelMetadata | undefined;
}

function StoredValue({ title, name, value, metadata }: StoredValueProps) {
  const mark = markOfValue(value);
  const points = useMemo<[number[], number[]]>(() => {
    const datum = datumOf(value);
    return isPlottableArray(datum.kind) ? pointsOf(datum) : [[], []];
  }, [value]);
  return (
    <section>
      <h3>
        {title} <span className={`mark ${mark.look}`}>{mark.word}</span>
      </h3>
      {points[1].length > 0 && (
        <div className="plots">
          <Plot label={`Elements of the ${title.toLowerCase()} of ${name} as stored`} series={["element"]} isTime={false} points={() => points} />
        </div>
      )}
      <dl className="facts">
        <dt>Value</dt>
        <dd className="value">
          {valueText(value, displayOf(metadata))} {metadata?.units}
        </dd>
        <Fact title="Alarm" text={alarmWords(value.severity, value.status)} />
        <Fact title="Time at the IOC" text={nanosecondsText(value.sourceTimeNs)} />
        <Fact title="Received" text={nanosecondsText(value.receiveTimeNs)} />
        <Fact title="Address" text={metadata?.address || "—"} />
      </dl>
    </section>
  );
}

/** A file as the command writes it: the snapshot in the first line, a PV in each that follows. */
function saveLines(snapshot: Snapshot, rows: readonly PvRow[]): void {
  const options = { useProtoFieldName: true, alwaysEmitImplicit: true } as const;
  const lines = [{ snapshot: toJson(SnapshotSchema, snapshot, options) }, ...rows.map((row) => toJson(PvRowSchema, row, options))];
  const text = lines.map((line) => `${JSON.stringify(line)}\n`);
  saveFile(new Blob([...text], { type: "application/x-ndjson" }), `snapshot-${snapshot.id}.jsonl`);
}
