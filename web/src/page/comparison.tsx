/** One snapshot against another, or against the machine: the greatest deviation first. */
import { useMemo, useState } from "react";
import { useSession } from "./session";
import { go, stored, type StateInit } from "./places";
import { setCell, setMark, type Column } from "./grid";
import { displayOf } from "./pvs";
import { FilteredGrid } from "./tables";
import { useAsked } from "./use_call";
import { counted, enumWords, plural, timeText, valueText } from "./words";
import {
  ComparisonOrder,
  DifferenceClass,
  type ChannelDifference,
  type ComparisonHeader,
  type ComparisonRow,
} from "../../gen/drey/compare/v1/compare_pb";
import type { Snapshot } from "../../gen/drey/snapshot/v1/snapshot_pb";

const COLUMNS: readonly Column[] = [
  { title: "What", width: "190px" },
  { title: "PV", width: "minmax(170px, 2fr)", className: "mono" },
  { title: "Channel", width: "80px" },
  { title: "Snapshot", width: "minmax(110px, 1.2fr)", className: "value right" },
  { title: "Other", width: "minmax(110px, 1.2fr)", className: "value right" },
  { title: "Difference", width: "110px", className: "value right" },
  { title: "Tolerances", width: "100px", className: "value right" },
  { title: "Device", width: "minmax(80px, 1fr)" },
];

const MOST = 20_000;

interface Line {
  readonly row: ComparisonRow;
  readonly difference: ChannelDifference;
  readonly isSetpoint: boolean;
}

/** Numbers of differences as people write them. */
export function deviationText(deviation: number | undefined): string {
  if (deviation === undefined) return "—";
  if (!Number.isFinite(deviation)) return "exact wanted";
  return deviation >= 1000 ? deviation.toExponential(1) : deviation.toFixed(deviation >= 10 ? 0 : 1);
}

export const deltaText = (delta: number | undefined) =>
  delta === undefined ? "—" : `${delta > 0 ? "+" : ""}${Number(delta.toPrecision(4))}`;

export function Comparison(props: { reference: Snapshot; other: Snapshot | undefined; otherState: StateInit }) {
  const { client, pvs, may } = useSession();
  const { reference, other, otherState } = props;
  const [isSetpointsOnly, setSetpointsOnly] = useState(false);
  const asked = useAsked(`${reference.id}`, async (signal) => {
    const lines: Line[] = [];
    let header: ComparisonHeader | undefined;
    let isCut = false;
    const request = {
      spec: { reference: stored(reference.id), others: [otherState], order: ComparisonOrder.DEVIATION, withValues: true },
      pageSize: MOST,
    };
    for await (const { part } of client.compare.compare(request, { signal })) {
      if (part.case === "header") header = part.value;
      else if (part.case === "end") isCut = part.value.nextPageToken !== "";
      else if (part.case === "rows")
        for (const row of part.value.rows) {
          const cell = row.cells[0];
          for (const [difference, isSetpoint] of [[cell?.setpoint, true], [cell?.readback, false]] as const)
            if (difference !== undefined && differs(difference)) lines.push({ row, difference, isSetpoint });
        }
    }
    const size = ({ difference }: Line) => difference.deviation ?? -1;
    lines.sort((a, b) => size(b) - size(a) || (a.row.name < b.row.name ? -1 : 1));
    return { header, lines, isCut };
  });
  const lines = useMemo(() => (asked.answer?.lines ?? []).filter(({ isSetpoint }) => isSetpoint || !isSetpointsOnly), [asked.answer, isSetpointsOnly]);
  const draw = ({ row, difference, isSetpoint }: Line, cells: HTMLElement[]) => {
    const { state } = pvs.watch;
    const slot = state.slotOf(row.number);
    const display = slot === undefined ? {} : displayOf(state.metadataOf(slot, isSetpoint ? 0 : 1));
    const isDifferent = difference.differenceClass === DifferenceClass.DIFFERENT;
    setMark(
      cells[0]!,
      `${isDifferent ? "≠ " : "? "}${enumWords(DifferenceClass[difference.differenceClass])}`,
      isDifferent ? "is-major" : "is-off",
    );
    setCell(cells[1]!, row.name, "", row.name);
    setCell(cells[2]!, isSetpoint ? "setpoint" : "readback");
    setCell(cells[3]!, valueText(isSetpoint ? row.referenceSetpoint : row.referenceReadback, display));
    setCell(cells[4]!, valueText(difference.other, display));
    setCell(cells[5]!, deltaText(difference.delta));
    setCell(cells[6]!, deviationText(difference.deviation));
    setCell(cells[7]!, row.device);
  };
  const summary = asked.answer?.header?.summaries[0];
  const stale = asked.answer?.header?.others[0]?.staleShards ?? 0;
  return (
    <>
      <div className="bar">
        <button onClick={() => go("snapshots", reference.id)}>← Snapshots</button>
        <h1>
          {reference.title || timeText(reference.takeTime)} against {other === undefined ? "the machine now" : other.title || timeText(other.takeTime)}
        </h1>
        <span className="space" />
        <button onClick={asked.again}>Compare again</button>
        <button className="main" disabled={!may("restore.plans.create")} onClick={() => go("restore", "new", reference.id)}>
          Plan a restore of this snapshot …
        </button>
      </div>
      {summary !== undefined && (
        <p role="status" className={summary.pvsDifferent + summary.pvsUnknown === 0 ? "good" : "warning"}>
          <strong>
            {summary.pvsDifferent === 0 ? "No PV differs" : `${plural(summary.pvsDifferent, "PV")} ${summary.pvsDifferent === 1 ? "differs" : "differ"}`}
          </strong>
          , {counted(summary.pvsSame)} are the same within tolerance
          {summary.pvsUnknown > 0 && <>, of {counted(summary.pvsUnknown)} it is not known (missing, disconnected or not comparable)</>}.
          {stale > 0 && <> Values of {plural(stale, "shard")} are stale.</>}
        </p>
      )}
      {asked.answer?.isCut && <p className="warning">Only the first {counted(MOST)} rows are shown.</p>}
      <FilteredGrid
        label="Differences"
        columns={COLUMNS}
        rows={lines}
        textOf={({ row }) => `${row.name} ${row.device}`}
        draw={draw}
        searchLabel="Search in the differences"
        placeholder="Search name and device"
        error={asked.error}
        busy={asked.answer === undefined ? "Comparing …" : ""}
        empty={asked.answer?.lines.length === 0 ? "Nothing differs." : "No difference passes the filters."}
      >
        {() => (
          <>
            <label>
              <input type="checkbox" checked={isSetpointsOnly} onChange={(event) => setSetpointsOnly(event.target.checked)} /> setpoints only
            </label>
            <button onClick={() => go("drift", reference.id)} disabled={other !== undefined}>
              Watch it live …
            </button>
          </>
        )}
      </FilteredGrid>
    </>
  );
}

function differs({ differenceClass }: ChannelDifference): boolean {
  return (
    differenceClass !== DifferenceClass.EQUAL &&
    differenceClass !== DifferenceClass.WITHIN_TOLERANCE &&
    differenceClass !== DifferenceClass.UNSPECIFIED
  );
}
