/** Import a file of PVs: what it would do, line by line, before it is done. */
import { useMemo, useState, type ChangeEvent } from "react";
import { newRequestId, type DreyClient } from "@drey/client";
import { setCell, setMark, type Column } from "./grid";
import { useSession } from "./session";
import { ErrorText, FilteredGrid } from "./tables";
import { saveFile } from "./save_file";
import { useActing } from "./use_call";
import { counted, day, enumWords, plural } from "./words";
import { FileFormat, ImportAction, type ImportRow, type ImportSummary } from "../../gen/drey/catalog/v1/catalog_pb";

const COLUMNS: readonly Column[] = [
  { title: "Line", width: "70px", className: "right" },
  { title: "What", width: "110px" },
  { title: "PV", width: "minmax(170px, 1fr)", className: "mono" },
  { title: "Columns", width: "minmax(110px, 1fr)" },
  { title: "Why", width: "minmax(200px, 2fr)" },
];

const LOOKS: Partial<Record<ImportAction, readonly [string, string]>> = {
  [ImportAction.ADDED]: ["+", "is-good"],
  [ImportAction.CHANGED]: ["≠", "is-minor"],
  [ImportAction.REFUSED]: ["✖", "is-major"],
};

interface ImportFile {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** What an import did, or would do. */
interface ImportResult {
  readonly rows: readonly ImportRow[];
  readonly summary: ImportSummary;
}

interface Told extends ImportResult {
  readonly file: ImportFile;
  readonly keepsExisting: boolean;
  /** Of the import to come: pressing twice does nothing twice. */
  readonly requestId: string;
  /** The catalog before, as a file. */
  readonly before?: Blob;
}

/** Longer the browser is not kept from drawing and from keys. */
const TURN_MS = 30;

async function runImport(
  client: DreyClient,
  options: { dryRun: boolean; keepExisting: boolean; fileName: string; requestId?: string },
  file: ImportFile,
  onRows: (count: number) => void,
): Promise<ImportResult> {
  const rows: ImportRow[] = [];
  let summary: ImportSummary | undefined;
  let turnEnd = performance.now() + TURN_MS;
  for await (const { part } of client.importPvs({ format: FileFormat.CSV, ...options }, file.bytes, new AbortController().signal)) {
    if (part.case === "rows") onRows(rows.push(...part.value.rows));
    else if (part.case === "summary") summary = part.value;
    if (performance.now() < turnEnd) continue;
    await new Promise((resolve) => setTimeout(resolve));
    turnEnd = performance.now() + TURN_MS;
  }
  if (summary === undefined) throw new Error("The server ended the import without a summary; nothing is known of it. Look into the audit.");
  return { rows, summary };
}

async function exportCatalog(client: DreyClient): Promise<Blob> {
  const parts: Uint8Array[] = [];
  for await (const { data } of client.catalog.exportPvs({ selector: { all: true }, format: FileFormat.CSV })) parts.push(data);
  return new Blob(parts as Uint8Array<ArrayBuffer>[], { type: "text/csv" });
}

const summaryText = ({ rows, added, changed, unchanged, refused }: ImportSummary) =>
  `${plural(rows, "row")}: ${counted(added)} added, ${counted(changed)} changed, ${counted(unchanged)} equal already, ${counted(refused)} refused`;

export function PvImport({ onClose }: { onClose: () => void }) {
  const { client, pvs } = useSession();
  const [keepsExisting, setKeepsExisting] = useState(false);
  const [told, setTold] = useState<Told>();
  const [phase, setPhase] = useState("");
  const { busy, error, act } = useActing();

  const plan = async (file: ImportFile, keepExisting: boolean) => {
    setPhase(`Looking at ${file.name}, ${counted(file.bytes.length)} bytes …`);
    const onRows = (count: number) => setPhase(`Looking at ${file.name}: ${plural(count, "row")} to show …`);
    const result = await runImport(client, { dryRun: true, keepExisting, fileName: file.name }, file, onRows);
    setTold({ ...result, file, keepsExisting: keepExisting, requestId: newRequestId() });
  };
  const choose = (chosen: File) =>
    act(async () => {
      setTold(undefined);
      // read once: what is imported is what the plan was made of, whatever becomes of the file
      await plan({ name: chosen.name, bytes: new Uint8Array(await chosen.arrayBuffer()) }, keepsExisting);
    });
  const chooseFile = ({ target }: ChangeEvent<HTMLInputElement>) => {
    const [chosen] = target.files ?? [];
    if (chosen !== undefined) choose(chosen);
    target.value = ""; // so that the file, mended, can be chosen again
  };
  const keep = (keepExisting: boolean) => {
    setKeepsExisting(keepExisting);
    if (told === undefined || told.summary.applied) return;
    setTold(undefined);
    act(() => plan(told.file, keepExisting));
  };
  const apply = ({ file, keepsExisting: keepExisting, requestId }: Told) =>
    act(async () => {
      setPhase("Keeping the catalog as it is …");
      const before = await exportCatalog(client);
      setPhase(`Importing ${file.name} …`);
      const onRows = (count: number) => setPhase(`Imported: ${plural(count, "row")} told …`);
      const result = await runImport(client, { dryRun: false, keepExisting, fileName: file.name, requestId }, file, onRows);
      setTold({ ...result, file, keepsExisting: keepExisting, requestId: newRequestId(), before });
      pvs.expireCatalog();
    });

  return (
    <section className="stack grow" aria-label="Import PVs">
      <div className="bar">
        <h1>Import PVs from a CSV file</h1>
        <label>
          File <input type="file" accept=".csv,text/csv" autoFocus disabled={busy} onChange={chooseFile} />
        </label>
        <label>
          <input type="checkbox" checked={keepsExisting} disabled={busy} onChange={(event) => keep(event.target.checked)} /> leave PVs that are there as they are
        </label>
        <span className="space" />
        <button onClick={onClose}>Back to the PVs</button>
      </div>
      <ErrorText text={error} isAlert />
      {busy && (
        <p aria-live="polite">
          <progress aria-label="The import" /> {phase}
        </p>
      )}
      {told !== undefined && <ImportTold told={told} busy={busy} onApply={() => apply(told)} />}
      {told === undefined && !busy && (
        <p className="dim">
          A line for each PV, with a head: Setpoint, Readback, Device, Description, tolerances, policies, and a column for each group of tags. Nothing is changed before
          you have seen what it does. What the file does not name stays as it is.
        </p>
      )}
    </section>
  );
}

const ACTIONS = [ImportAction.REFUSED, ImportAction.CHANGED, ImportAction.ADDED];

function ImportTold({ told, busy, onApply }: { told: Told; busy: boolean; onApply: () => void }) {
  const { rows, summary, file } = told;
  const isRefused = summary.refused > 0;
  const [action, setAction] = useState(ImportAction.UNSPECIFIED);
  const shown = useMemo(() => (action === ImportAction.UNSPECIFIED ? rows : rows.filter((row) => row.action === action)), [rows, action]);
  const changes = summary.added + summary.changed;
  return (
    <>
      <p className={isRefused ? "error" : summary.applied ? "good" : "warning"} role={isRefused ? "alert" : "status"}>
        {isRefused
          ? `✖ ${file.name}: ${summaryText(summary)}. Nothing is imported while a line is refused: mend the file, and choose it again.`
          : summary.applied
            ? `✓ Imported ${file.name}. ${summaryText(summary)}.`
            : `${file.name}: ${summaryText(summary)}. Nothing is changed yet.`}
        {summary.tagGroupsAdded.length > 0 && ` New groups of tags: ${summary.tagGroupsAdded.join(", ")}.`}
      </p>
      {summary.applied && told.before !== undefined && <UndoHint told={told} before={told.before} />}
      <FilteredGrid
        label={summary.applied ? "What the import did" : "What the import would do"}
        columns={COLUMNS}
        rows={shown}
        textOf={(row) => `${row.line} ${row.name} ${row.column} ${row.error?.message ?? ""}`}
        draw={(row, cells) => {
          const [shape, look] = LOOKS[row.action] ?? ["", "is-plain"];
          const why = row.error?.message ?? "";
          setCell(cells[0]!, String(row.line));
          setMark(cells[1]!, `${shape} ${enumWords(ImportAction[row.action])}`, look);
          setCell(cells[2]!, row.name, "", row.name);
          setCell(cells[3]!, row.column || row.error?.field || "", "", row.column);
          setCell(cells[4]!, why, "", why);
        }}
        searchLabel="Search line, PV, column, reason"
        placeholder="Search line, PV, column, reason"
        empty={rows.length === 0 ? "The file says what the catalog has already." : "No line passes the filters."}
      >
        {() => (
          <>
            <label>
              Show{" "}
              <select value={action} onChange={(event) => setAction(Number(event.target.value))}>
                <option value={ImportAction.UNSPECIFIED}>all that is not equal</option>
                {ACTIONS.map((each) => (
                  <option key={each} value={each}>
                    {enumWords(ImportAction[each])}
                  </option>
                ))}
              </select>
            </label>
            {!summary.applied && (
              <button className="main" disabled={busy || isRefused || changes === 0} onClick={onApply}>
                {changes === 0 ? "There is nothing to import" : `Import it: ${counted(summary.added)} added, ${counted(summary.changed)} changed`}
              </button>
            )}
          </>
        )}
      </FilteredGrid>
    </>
  );
}

/** How what was changed comes back. */
function UndoHint({ told: { summary, file }, before }: { told: Told; before: Blob }) {
  return (
    <p className="dim">
      {summary.changed > 0 && (
        <>
          To take back what was changed, import the catalog as it was before:{" "}
          <button onClick={() => saveFile(before, `catalog-before-${file.name.replace(/\.csv$/i, "")}-${day(new Date())}.csv`)}>Save it as a file</button>{" "}
        </>
      )}
      {summary.added > 0 && "PVs that were added stay then; they are deleted with drey pv rm. "}
      {summary.tagGroupsAdded.length > 0 && "Tags of groups that are new stay too. "}
      The act is in the <a href="#/audit">audit</a> and among the <a href="#/jobs">jobs</a>.
    </p>
  );
}
