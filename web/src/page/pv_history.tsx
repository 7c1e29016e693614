/** The history of one PV through snapshots, as a picture and as a table. */
import { useEffect, useMemo, useState } from "react";
import type { Display } from "@drey/client";
import { Grid, setCell, setMark, type Column, type Draw } from "./grid";
import { historyColumns, isMissing, readHistory } from "./history_points";
import { Legend, Plot } from "./lazy_plot";
import type { PlotProps } from "./plot";
import { useSession } from "./session";
import { ErrorText } from "./tables";
import { useAsked } from "./use_call";
import { counted, nanosecondsText, plural, valueText } from "./words";
import type { Value } from "../../gen/drey/common/v1/value_pb";

const COLUMNS: readonly Column[] = [
  { title: "Snapshot taken", width: "minmax(150px, 1fr)" },
  { title: "State", width: "138px" },
  { title: "Setpoint", width: "minmax(80px, 1fr)", className: "value right" },
  { title: "Readback", width: "minmax(80px, 1fr)", className: "value right" },
];

const SPANS: readonly (readonly [string, number])[] = [
  ["all times", 0],
  ["the last day", 1],
  ["the last week", 7],
  ["the last month", 30],
];
const DAY = 86_400;
const SERIES = ["setpoint", "readback"] as const;
const LOOK_MS = 5000;
/** Beyond, a plot and a table tell no more. */
const MOST = 20_000;
/** Each brings the whole of its array, of which a few elements are shown. */
const MOST_ARRAYS = 100;

interface HistoryProps {
  readonly number: number;
  readonly name: string;
  readonly displays: readonly [Display, Display];
  readonly isArray: boolean;
  readonly onClose: () => void;
}

/** A history has no labels of an enumeration: those of today stand beside the number, which is what was stored. */
function historyText(value: Value, { labels, ...display }: Display): string {
  const text = valueText(value, display);
  const label = value.data.case === "enumValue" ? labels?.[value.data.value.index] : undefined;
  return label === undefined ? text : `${text} (today ${label})`;
}

/** Call when a snapshot was taken, deleted or brought back since. */
function useNewSnapshots(onNew: () => void): void {
  const { client } = useSession();
  const [known, setKnown] = useState<string>();
  const newest = useAsked("", (signal) => client.snapshot.listSnapshots({ pageSize: 1 }, { signal }), LOOK_MS).answer;
  const now = newest && `${newest.snapshots[0]?.id ?? ""} ${newest.totalSize}`;
  useEffect(() => {
    if (now === undefined || now === known) return;
    setKnown(now);
    if (known !== undefined) onNew();
  }, [now, known, onNew]);
}

export function PvHistory({ number, name, displays, isArray, onClose }: HistoryProps) {
  const { client } = useSession();
  const [days, setDays] = useState(0);
  const [chosenId, setChosenId] = useState("");
  const most = isArray ? MOST_ARRAYS : MOST;
  const asked = useAsked(`${number} ${days}`, async (signal) => {
    const since = days === 0 ? {} : { fromTime: { seconds: BigInt(Math.floor(Date.now() / 1000) - days * DAY) } };
    const [listed, history] = await Promise.all([
      client.snapshot.listSnapshots({ pageSize: 1, ...since }, { signal }),
      readHistory(client.snapshot.getPvHistory({ number: String(number), ...since }, { signal }), most, (value, role) =>
        historyText(value, displays[role === "setpoint" ? 0 : 1]),
      ),
    ]);
    return { ...history, without: Math.max(0, listed.totalSize - history.entries.length) };
  });
  useNewSnapshots(asked.again);
  const entries = asked.answer?.entries ?? [];
  const points = useMemo(() => historyColumns(entries), [asked.answer]);
  const drawn = useMemo(() => ([1, 2] as const).filter((series) => points[series].some((each) => each !== null)), [points]);
  const plotted = useMemo<PlotProps["points"]>(() => {
    const columns: ReturnType<PlotProps["points"]> = [points[0], ...drawn.map((series) => points[series])];
    return () => columns;
  }, [points, drawn]);
  const isDrawn = drawn.length > 0;
  const names = drawn.map((series) => SERIES[series - 1]!);
  const missing = entries.filter(isMissing).length;
  const chosen = entries.findIndex(({ snapshotId }) => snapshotId === chosenId);
  const draw = useMemo<Draw>(
    () => (index, cells) => {
      const { timeNs, mark, setpoint, readback } = entries[index]!;
      setCell(cells[0]!, nanosecondsText(timeNs).slice(0, 19));
      setMark(cells[1]!, mark.word, mark.look);
      setCell(cells[2]!, setpoint?.text ?? "");
      setCell(cells[3]!, readback?.text ?? "");
    },
    [asked.answer],
  );
  const openSnapshot = (index: number) => {
    if (entries[index] !== undefined) location.hash = `#/snapshots/${entries[index].snapshotId}`;
  };
  return (
    <section className="panel stack" aria-label={`History of ${name}`}>
      <div className="bar">
        <h2 className="mono">{name}</h2>
        <label>
          through snapshots of{" "}
          <select value={days} onChange={(event) => setDays(Number(event.target.value))}>
            {SPANS.map(([title, span]) => (
              <option key={span} value={span}>
                {title}
              </option>
            ))}
          </select>
        </label>
        {isDrawn && <Legend names={names} />}
        <span className="space" />
        <button disabled={entries[chosen] === undefined} onClick={() => openSnapshot(chosen)}>
          Open the snapshot
        </button>
        <button aria-label="Close the history" onClick={onClose}>
          ×
        </button>
      </div>
      <ErrorText text={asked.error} isAlert />
      {asked.answer !== undefined && (
        <p className={missing > 0 || asked.answer.isCut ? "warning" : "dim"}>
          {plural(entries.length, "snapshot")} with it
          {missing > 0 && `, it was missing in ${counted(missing)} of them${isDrawn ? ": gaps" : ""}`}
          {asked.answer.isCut ? `; older ones are not shown` : asked.answer.without > 0 && `; ${counted(asked.answer.without)} more do not have it`}.
        </p>
      )}
      <div className="plots">
        {isDrawn && (
          <Plot label={`The ${names.join(" and ")} of ${name} in ${plural(entries.length, "snapshot")}`} series={names} isTime showsPoints points={plotted} />
        )}
        <div className="beside">
          <Grid
            label={`Values of ${name} in snapshots`}
            columns={COLUMNS}
            count={entries.length}
            draw={draw}
            chosen={chosen}
            onChoose={(index) => setChosenId(entries[index]!.snapshotId)}
            onKey={(key, index) => {
              if (key !== "Enter") return false;
              openSnapshot(index);
              return true;
            }}
            empty={asked.answer === undefined && asked.error === "" ? "Reading the history …" : "No snapshot of that time has it."}
          />
        </div>
      </div>
    </section>
  );
}
