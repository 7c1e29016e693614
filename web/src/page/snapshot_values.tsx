/** The values of a snapshot, and a file of them. */
import { useMemo, useState } from "react";
import { toJson } from "@bufbuild/protobuf";
import { joinRows } from "@drey/client";
import { setCell, setMark, type Column, type Draw } from "./grid";
import { displayOf } from "./pvs";
import { useSession } from "./session";
import { go } from "./snapshots";
import { searched, SearchedGrid } from "./tables";
import { valuesCsv } from "./values_csv";
import { useAsked } from "./use_call";
import { channelMark, counted, graver, nanosecondsText, timeText, valueText } from "./words";
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

export function SnapshotValues({ snapshot }: { snapshot: Snapshot }) {
  const { client } = useSession();
  const [search, setSearch] = useState("");
  const [isMissingOnly, setMissingOnly] = useState(false);
  const [chosen, setChosen] = useState(-1);
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
  const shown = useMemo(() => {
    const { rows, metadata } = asked.answer ?? { rows: [], metadata: new Map<string, PvMetadata>() };
    const passes = searched(search);
    return rows.filter((row) => passes(`${row.name} ${metadata.get(row.number)?.device ?? ""}`));
  }, [asked.answer, search]);
  const draw = useMemo<Draw>(
    () => (index, cells) => {
      const row = shown[index]!;
      const pv = asked.answer?.metadata.get(row.number);
      const mark = graver(markOfValue(row.setpoint), markOfValue(row.readback));
      const display = (metadata: ChannelMetadata | undefined) => displayOf(metadata);
      setMark(cells[0]!, mark.word, mark.look);
      setCell(cells[1]!, row.name, "", row.name);
      setCell(cells[2]!, row.setpoint === undefined ? "" : valueText(row.setpoint, display(pv?.setpoint)));
      setCell(cells[3]!, row.readback === undefined ? "" : valueText(row.readback, display(pv?.readback)));
      setCell(cells[4]!, pv?.setpoint?.units || pv?.readback?.units || "");
      setCell(cells[5]!, nanosecondsText(row.readback?.sourceTimeNs ?? row.setpoint?.sourceTimeNs ?? 0n));
      setCell(cells[6]!, pv?.device ?? "");
    },
    [shown, asked.answer],
  );
  return (
    <>
      <div className="bar">
        <button onClick={() => go("snapshots", snapshot.id)}>← Snapshots</button>
        <h1>
          Values of {snapshot.title || "a snapshot"} <span className="dim">taken {timeText(snapshot.takeTime)}</span>
        </h1>
        <span className="space" />
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
          onClick={() => saveFile(`snapshot-${snapshot.id}.csv`, "text/csv;charset=utf-8", valuesCsv(shown, asked.answer!.metadata))}
        >
          … as CSV
        </button>
      </div>
      <SearchedGrid
        label="Values of the snapshot"
        columns={COLUMNS}
        count={shown.length}
        draw={draw}
        chosen={chosen}
        onChoose={setChosen}
        search={search}
        onSearch={setSearch}
        searchLabel="Search in the values"
        placeholder="Search name and device"
        error={asked.error}
        busy={asked.answer === undefined ? "Reading the values …" : ""}
        empty="Nothing passes the filters."
      >
        <label>
          <input type="checkbox" checked={isMissingOnly} onChange={(event) => setMissingOnly(event.target.checked)} /> missing only
        </label>
      </SearchedGrid>
    </>
  );
}

/** A file as the command writes it: the snapshot in the first line, a PV in each that follows. */
function saveLines(snapshot: Snapshot, rows: readonly PvRow[]): void {
  const options = { useProtoFieldName: true, alwaysEmitImplicit: true } as const;
  const lines = [{ snapshot: toJson(SnapshotSchema, snapshot, options) }, ...rows.map((row) => toJson(PvRowSchema, row, options))];
  const text = lines.map((line) => `${JSON.stringify(line)}\n`);
  saveFile(`snapshot-${snapshot.id}.jsonl`, "application/x-ndjson", text);
}

function saveFile(name: string, type: string, text: readonly string[]): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([...text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
