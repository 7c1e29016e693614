/** Restore: plan, look, execute, follow, undo. What is left out is always told. */
import { useEffect, useMemo, useState } from "react";
import { joinRows, planDigest, type Display } from "@drey/client";
import { setCell, setMark, type Column } from "./grid";
import { deltaText, deviationText } from "./comparison";
import { useSession } from "./session";
import { FieldForm, Field, TextField, typedDuration, typedNumber } from "./fields";
import { ruleWords } from "./plan_draft";
import { NewPlan } from "./plan_form";
import { go } from "./places";
import { displayOf, Fact } from "./pvs";
import type { PvStore } from "./pv_store";
import { ErrorText, FilteredGrid, ListTable, type ListColumn } from "./tables";
import { useActing, useAsked } from "./use_call";
import { counted, enumWords, errorText, plural, timeText, valueText } from "./words";
import {
  PlanState,
  RestoreState,
  SkipReason,
  Verdict,
  type Plan,
  type PlanItem,
  type Restore,
  type RestoreItem,
} from "../../gen/drey/restore/v1/restore_pb";

export function RestoreTab() {
  const [, , first = "", second = "", third = ""] = location.hash.split("/");
  if (first === "new") return <NewPlan key={`${second} ${third}`} snapshotId={second} names={third.split(",").filter(Boolean).map(decodeURIComponent)} />;
  if (first === "of") return <PlanOfRestore key={second} restoreId={second} />;
  if (first !== "") return <PlanView key={first} planId={first} />;
  return <PlanList />;
}

/** Goes on to the plan of a restore, which shows the restore. */
function PlanOfRestore({ restoreId }: { restoreId: string }) {
  const { client } = useSession();
  const asked = useAsked(restoreId, (signal) => client.restore.getRestore({ id: restoreId }, { signal }));
  const planId = asked.answer?.restore?.planId;
  useEffect(() => {
    if (planId !== undefined) location.replace(`#/restore/${planId}`);
  }, [planId]);
  return asked.error === "" ? <p>Looking for the plan …</p> : <ErrorText text={asked.error} isAlert />;
}

function PlanList() {
  const { client } = useSession();
  const plans = useAsked("plans", (signal) => client.restore.listPlans({ pageSize: 50 }, { signal }), 5000);
  const restores = useAsked("restores", (signal) => client.restore.listRestores({ pageSize: 100 }, { signal }), 3000);
  const byPlan = new Map(restores.answer?.restores.map((restore) => [restore.planId, restore]));
  const columns: readonly ListColumn<Plan>[] = [
    { title: "Plan made", cell: (plan) => <a href={`#/restore/${plan.id}`}>{timeText(plan.createTime)}</a> },
    { title: "By", cell: (plan) => plan.actor?.principal },
    { title: "Writes", isNumber: true, cell: (plan) => counted(plan.writes) },
    { title: "Left out", isNumber: true, cell: (plan) => counted(plan.pvs - plan.writes) },
    { title: "State", cell: (plan) => enumWords(PlanState[plan.state]) },
    { title: "What came of it", cell: (plan) => byPlan.has(plan.id) && <Outcome restore={byPlan.get(plan.id)!} /> },
    {
      title: "Comment",
      cell: (plan) => (
        <>
          {plan.undoesRestoreId !== "" && <span className="mark is-off">↶ way back</span>} {plan.spec?.comment}
        </>
      ),
    },
  ];
  return (
    <div className="stack">
      <h1>Plans and restores</h1>
      <p className="dim">
        A plan lists what a restore would write, and writes nothing. Make one from a snapshot: <a href="#/snapshots">Snapshots</a>.
      </p>
      <ListTable
        label="Plans, newest first"
        asked={plans}
        rows={plans.answer?.plans ?? []}
        columns={columns}
        idOf={(plan) => plan.id}
        onChoose={(plan) => go("restore", plan.id)}
        empty="There are no plans yet."
      />
    </div>
  );
}

function Outcome({ restore }: { restore: Restore }) {
  const look = restore.allVerified ? "is-good" : !hasEnded(restore) ? "is-off" : headline(restore).startsWith("✖") ? "is-major" : "is-minor";
  return <span className={`mark ${look}`}>{headline(restore)}</span>;
}

const ENDED: ReadonlySet<RestoreState> = new Set([
  RestoreState.COMPLETED,
  RestoreState.ABORTED,
  RestoreState.INTERRUPTED,
  RestoreState.FAILED,
]);
const hasEnded = (restore: Restore) => ENDED.has(restore.state);

const VALUES = ["current", "stored", "target", "storedReadback"] as const;

interface ReadPlan {
  readonly plan: Plan;
  readonly items: readonly PlanItem[];
  /** Why the digest computed here is not that of the server; empty where it is. */
  readonly digestError: string;
}

/** A plan may be executed once its own digest, computed here from all that is shown, is the one that the server says. */
async function readPlan(client: ReturnType<typeof useSession>["client"], id: string, signal: AbortSignal): Promise<ReadPlan> {
  const { plan } = await client.restore.getPlan({ id }, { signal });
  const items: PlanItem[] = [];
  for await (const response of client.restore.readPlan({ id }, { signal })) joinRows(items, response.items, VALUES);
  let digestError = "";
  try {
    const digest = await planDigest(plan!, items);
    if (digest !== plan!.digest) digestError = `what is shown here has the digest ${digest}, and the server says ${plan!.digest}`;
  } catch (error) {
    digestError = errorText(error);
  }
  return { plan: plan!, items, digestError };
}

function PlanView({ planId }: { planId: string }) {
  const { client } = useSession();
  const asked = useAsked(planId, (signal) => readPlan(client, planId, signal));
  // others approve, reject and execute it too; what it writes never changes
  const latest = useAsked(`state of ${planId}`, (signal) => client.restore.getPlan({ id: planId }, { signal }), 2000);
  const [restore, setRestore] = useState<Restore>();
  const restoreId = restore?.id || latest.answer?.plan?.restoreId || asked.answer?.plan.restoreId || "";
  const followed = useRestore(restoreId) ?? restore;
  if (asked.answer === undefined)
    return asked.error === "" ? <p>Reading the plan …</p> : <p className="error">{asked.error}</p>;
  const plan = latest.answer?.plan ?? asked.answer.plan;
  return (
    <>
      <div className="bar">
        <button onClick={() => go("restore")}>← Plans</button>
        <h1>
          {plan.undoesRestoreId !== "" ? "Way back of a restore" : "Plan"} of {timeText(plan.createTime)}, by {plan.actor?.principal}
        </h1>
        {plan.spec?.comment && <span className="dim">{plan.spec.comment}</span>}
      </div>
      {followed === undefined ? (
        <PlanSummary read={{ ...asked.answer, plan }} onExecute={setRestore} onExpire={latest.again} />
      ) : (
        <RestoreSummary restore={followed} plan={plan} />
      )}
      <PlanRules plan={plan} items={asked.answer.items} />
      {followed !== undefined && hasEnded(followed) ? (
        <Report restoreId={followed.id} />
      ) : (
        <PlanTable items={asked.answer.items} />
      )}
    </>
  );
}

function PlanSummary({ read, onExecute, onExpire }: { read: ReadPlan; onExecute: (restore: Restore) => void; onExpire: () => void }) {
  const { client, may, who } = useSession();
  const { plan, items, digestError } = read;
  const { busy, error, act } = useActing();
  const [asks, setAsks] = useState(false);
  const warned = items.filter((item) => item.warnings.length > 0).length;
  const left = useSecondsLeft(plan);
  useEffect(() => {
    if (left <= 0 && plan.state === PlanState.READY) onExpire();
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [left <= 0]);
  const why =
    digestError !== ""
      ? "its digest is not the one that was looked at"
      : plan.state === PlanState.WAITS_FOR_APPROVAL
        ? "it waits for the approval of a second person"
        : plan.state !== PlanState.READY || left <= 0
        ? `it is ${left <= 0 ? "expired" : enumWords(PlanState[plan.state])}`
        : plan.writes === 0
          ? "there is nothing to write"
          : !may("restore.plans.execute")
            ? "your key may not execute plans"
            : "";
  const canDecide = plan.state === PlanState.WAITS_FOR_APPROVAL && digestError === "" && plan.actor?.principal !== who.principal;
  const decide = (approves: boolean) =>
    act(async () => {
      if (approves) await client.restore.approvePlan({ id: plan.id, digest: plan.digest });
      else await client.restore.rejectPlan({ id: plan.id, reason: "rejected on the page" });
      onExpire();
    });
  return (
    <section className="panel stack" aria-label="The plan">
      <div className="bar">
        <span>
          <strong>{plural(plan.writes, "write")}</strong>
          {plan.stages.length > 1 && ` in ${plan.stages.length} stages (${plan.stages.map(({ stage, writes }) => `stage ${stage}: ${counted(writes)}`).join(", ")})`}
        </span>
        {plan.skips.map(({ reason, pvs }) => (
          <span key={reason} className={`mark ${reason === SkipReason.EQUAL ? "is-plain" : "is-off"}`}>
            {counted(pvs)} left out: {enumWords(SkipReason[reason])}
          </span>
        ))}
        {warned > 0 && <span className="mark is-minor">▲ {plural(warned, "PV")} with a warning</span>}
        <span className="space" />
        {why === "" && <span className="dim">may be executed for {Math.ceil(left / 60)} min</span>}
        {canDecide && (
          <>
            <button disabled={busy || !may("restore.plans.approve")} onClick={() => decide(true)}>
              ✓ Approve
            </button>
            <button className="danger" disabled={busy || !may("restore.plans.reject")} onClick={() => decide(false)}>
              ✖ Reject
            </button>
          </>
        )}
        {!asks && (
          <button className="main" disabled={busy || why !== ""} onClick={() => setAsks(true)}>
            Execute …
          </button>
        )}
      </div>
      {why !== "" && <p className="warning">This plan can not be executed: {why}.</p>}
      <ErrorText text={digestError} isAlert />
      {digestError === "" && <p className="dim wraps">✓ The digest of what is shown was computed here: {plan.digest}</p>}
      {asks && why === "" && <ExecuteForm plan={plan} onExecute={onExecute} onClose={() => setAsks(false)} />}
      <ErrorText text={error} isAlert />
    </section>
  );
}

/** What was edited, what must hold, when it goes back: part of what is executed, and of what a second person approves. */
function PlanRules({ plan, items }: { plan: Plan; items: readonly PlanItem[] }) {
  if (plan.spec === undefined) return null;
  const rules = ruleWords(plan.spec);
  const edited = items.filter(({ warnings }) => warnings.some((warning) => warning.startsWith("edited: "))).length;
  if (rules.length === 0) return null;
  return (
    <section className="panel scrolls rules" aria-label="Rules of the plan" tabIndex={0}>
      <dl className="facts">
        {rules.map(([title, words], index) => (
          <Fact key={index} title={title} text={words} />
        ))}
        {plan.spec.edits.length > 0 && <Fact title="Edited" text={`${plural(edited, "PV")} of the plan`} />}
      </dl>
    </section>
  );
}

/** The last question before something is written, and what may go wrong then. */
function ExecuteForm({ plan, onExecute, onClose }: { plan: Plan; onExecute: (restore: Restore) => void; onClose: () => void }) {
  const { client } = useSession();
  const [unreachable, setUnreachable] = useState("");
  const [writeWait, setWriteWait] = useState("");
  const [verifyWait, setVerifyWait] = useState("");
  const [acceptsMoved, setAcceptsMoved] = useState(false);
  const { busy, refusal, act } = useActing();
  const execute = () =>
    act(async () => {
      const maxUnreachable = typedNumber(unreachable, "max_unreachable", true);
      const writeTimeout = typedDuration(writeWait, "write_timeout");
      const verifyTimeout = typedDuration(verifyWait, "verify_timeout");
      const answer = await client.restore.executePlan({
        planId: plan.id,
        digest: plan.digest,
        ...(maxUnreachable === undefined ? {} : { maxUnreachable }),
        ...(writeTimeout === undefined ? {} : { writeTimeout }),
        ...(verifyTimeout === undefined ? {} : { verifyTimeout }),
        ...(acceptsMoved ? { acceptMoved: { case: "all", value: {} } } : {}),
      });
      if (answer.restore !== undefined) onExecute(answer.restore);
    });
  return (
    <div className="warning" role="alertdialog" aria-label="Execute the plan">
      <FieldForm label="Execute the plan" refusal={refusal} onSubmit={execute}>
        <div className="bar">
          <strong>This writes {plural(plan.writes, "value")} to the machine.</strong>
          <button className="danger" autoFocus disabled={busy}>
            {busy ? "Starting …" : `Write ${plural(plan.writes, "value")} now`}
          </button>
          <button type="button" onClick={onClose}>
            Not now
          </button>
        </div>
        <div className="bar">
          <TextField label="PVs that may be unreachable" path="max_unreachable" size={5} placeholder="any but all" value={unreachable} onValue={setUnreachable} />
          <TextField label="Writes of a stage: seconds" path="write_timeout" size={5} placeholder="10" value={writeWait} onValue={setWriteWait} />
          <TextField label="Readbacks: seconds" path="verify_timeout" size={5} placeholder="10" value={verifyWait} onValue={setVerifyWait} />
          <Field label="also where the machine has moved since the plan was made" path="all">
            {(aria) => <input type="checkbox" checked={acceptsMoved} onChange={(event) => setAcceptsMoved(event.target.checked)} {...aria} />}
          </Field>
        </div>
      </FieldForm>
    </div>
  );
}

function useSecondsLeft(plan: Plan): number {
  const left = () => Number(plan.expireTime?.seconds ?? 0n) - Date.now() / 1000;
  const [seconds, setSeconds] = useState(left);
  useEffect(() => {
    const timer = setInterval(() => setSeconds(left()), 1000);
    return () => clearInterval(timer);
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [plan]);
  return seconds;
}

const PLAN_COLUMNS: readonly Column[] = [
  { title: "Stage", width: "50px", className: "right" },
  { title: "What", width: "170px" },
  { title: "PV", width: "minmax(170px, 2fr)", className: "mono" },
  { title: "Now", width: "minmax(100px, 1fr)", className: "value right" },
  { title: "Will be", width: "minmax(100px, 1fr)", className: "value right" },
  { title: "Change", width: "100px", className: "value right" },
  { title: "Tolerances", width: "90px", className: "value right" },
  { title: "Warnings", width: "minmax(120px, 2fr)" },
];

const PASSES: Record<string, (item: PlanItem) => boolean> = {
  "": () => true,
  writes: (item) => item.skip === SkipReason.UNSPECIFIED,
  out: (item) => item.skip !== SkipReason.UNSPECIFIED && item.skip !== SkipReason.EQUAL,
  warned: (item) => item.warnings.length > 0,
};

/** As a setpoint is shown. */
function setpointDisplay(pvs: PvStore, number: string): Display {
  const slot = pvs.watch.state.slotOf(number);
  return slot === undefined ? {} : displayOf(pvs.watch.state.metadataOf(slot, 0));
}

function PlanTable({ items }: { items: readonly PlanItem[] }) {
  const { pvs } = useSession();
  const [shows, setShows] = useState("");
  const rows = useMemo(() => items.filter(PASSES[shows]!), [items, shows]);
  const draw = (item: PlanItem, cells: HTMLElement[]) => {
    const display = setpointDisplay(pvs, item.number);
    const isWrite = item.skip === SkipReason.UNSPECIFIED;
    setCell(cells[0]!, isWrite ? String(item.stage) : "");
    setMark(
      cells[1]!,
      isWrite ? "→ write" : item.skip === SkipReason.EQUAL ? "= equal already" : `– ${enumWords(SkipReason[item.skip])}`,
      isWrite ? "is-good" : item.skip === SkipReason.EQUAL ? "is-plain" : "is-off",
    );
    setCell(cells[2]!, item.name, "", item.name);
    setCell(cells[3]!, valueText(item.current, display));
    setCell(cells[4]!, isWrite ? valueText(item.target, display) : "", "", isWrite ? "" : `stored: ${valueText(item.stored, display)}`);
    setCell(cells[5]!, deltaText(item.delta));
    setCell(cells[6]!, deviationText(item.deviation));
    const warnings = item.warnings.join("; ");
    setCell(cells[7]!, warnings === "" ? "" : `▲ ${warnings}`, "", warnings);
  };
  return (
    <FilteredGrid
      label="Items of the plan"
      columns={PLAN_COLUMNS}
      rows={rows}
      textOf={(item) => item.name}
      draw={draw}
      searchLabel="Search in the plan"
      placeholder="Search name"
      empty="No PV of the plan passes the filters."
    >
      {() => (
        <select aria-label="Which rows" value={shows} onChange={(event) => setShows(event.target.value)}>
          <option value="">all {counted(items.length)} PVs</option>
          <option value="writes">writes only</option>
          <option value="out">left out, but not because equal</option>
          <option value="warned">with a warning</option>
        </select>
      )}
    </FilteredGrid>
  );
}

/** The restore as it is now, followed until it ends, past cuts of the connection. */
function useRestore(id: string): Restore | undefined {
  const { client } = useSession();
  const [restore, setRestore] = useState<Restore>();
  useEffect(() => {
    if (id === "") return;
    const stop = new AbortController();
    const follow = async () => {
      for (let isOver = false; !isOver && !stop.signal.aborted; ) {
        try {
          for await (const answer of client.restore.watchRestore({ id }, { signal: stop.signal })) {
            setRestore(answer.restore);
            isOver = answer.restore !== undefined && hasEnded(answer.restore);
          }
        } catch {
          // the banner tells of the connection; the restore itself goes on without us
        }
        if (!isOver) await new Promise((resolve) => setTimeout(resolve, 1000));
      }
    };
    void follow();
    return () => stop.abort();
  }, [client, id]);
  return id === "" ? undefined : restore;
}

const GOOD: ReadonlySet<Verdict> = new Set([Verdict.VERIFIED, Verdict.EQUAL_ALREADY]);
const OPEN: ReadonlySet<Verdict> = new Set([Verdict.PENDING, Verdict.WRITTEN]);

function verdictLook(verdict: Verdict): string {
  if (GOOD.has(verdict)) return "is-good";
  if (OPEN.has(verdict)) return "is-off";
  return verdict === Verdict.SKIPPED ? "is-minor" : "is-major";
}

function verdictShape(verdict: Verdict): string {
  if (GOOD.has(verdict)) return "✓";
  if (OPEN.has(verdict)) return "…";
  return verdict === Verdict.SKIPPED ? "–" : "✖";
}

const countOf = (restore: Restore, wanted: (verdict: Verdict) => boolean) =>
  restore.verdicts.filter(({ verdict }) => wanted(verdict)).reduce((sum, { pvs }) => sum + pvs, 0);

/** Writes that are neither verified nor still to be judged. */
const failedCount = (restore: Restore) =>
  countOf(restore, (verdict) => !GOOD.has(verdict) && !OPEN.has(verdict) && verdict !== Verdict.SKIPPED);

function headline(restore: Restore): string {
  const state = enumWords(RestoreState[restore.state]);
  if (!hasEnded(restore)) return `… ${state}`;
  if (restore.allVerified) return "✓ Restored, and every write verified";
  const failed = failedCount(restore);
  if (restore.state === RestoreState.COMPLETED && failed === 0)
    return `▲ Every write is verified; ${plural(countOf(restore, (verdict) => verdict === Verdict.SKIPPED), "PV")} left out by the plan`;
  return `✖ ${state}: ${plural(failed, "PV")} not as in the plan`;
}

function RestoreSummary({ restore, plan }: { restore: Restore; plan: Plan }) {
  const { client, may } = useSession();
  const { busy, error, act } = useActing();
  const pending = countOf(restore, (verdict) => verdict === Verdict.PENDING);
  const total = plan.writes;
  const isOver = hasEnded(restore);
  const undo = () =>
    act(async () => {
      const answer = await client.restore.createPlan({
        spec: { source: { case: "undo", value: { restoreId: restore.id } }, comment: "way back" },
      });
      go("restore", answer.plan!.id);
    });
  const bad = restore.state === RestoreState.FAILED || restore.state === RestoreState.INTERRUPTED;
  return (
    <section className="panel stack" aria-label="The restore">
      <div className="bar" role="status">
        <h2>
          {headline(restore)}
        </h2>
        <span className="space" />
        {!isOver && (
          <>
            {restore.state === RestoreState.PAUSED ? (
              <button disabled={busy || !may("restore.restores.resume")} onClick={() => act(async () => void (await client.restore.resumeRestore({ id: restore.id })))}>
                ▶ Resume
              </button>
            ) : (
              <button disabled={busy || !may("restore.restores.pause")} onClick={() => act(async () => void (await client.restore.pauseRestore({ id: restore.id })))}>
                ⏸ Pause
              </button>
            )}
            <button
              className="danger"
              disabled={busy || !may("restore.restores.abort")}
              onClick={() => act(async () => void (await client.restore.abortRestore({ id: restore.id, reason: "by the page" })))}
            >
              ■ Abort
            </button>
          </>
        )}
        {isOver && (
          <button disabled={busy || !may("restore.plans.create")} onClick={undo}>
            {busy ? "Reading the machine …" : "↶ Plan the way back …"}
          </button>
        )}
      </div>
      {!isOver && <progress aria-label="Writes that were sent" max={Math.max(1, total)} value={Math.max(0, total - pending)} />}
      <div className="bar">
        {restore.verdicts.map(({ verdict, pvs }) => (
          <span key={verdict} className={`mark ${verdictLook(verdict)}`}>
            {verdictShape(verdict)} {counted(pvs)} {enumWords(Verdict[verdict])}
          </span>
        ))}
      </div>
      {restore.mayStillFire > 0 && (
        <p className="warning">
          ▲ {plural(restore.mayStillFire, "write")} was sent and never answered, and may still take place. These PVs are held until their IOC answers.
        </p>
      )}
      {restore.error !== undefined && <p className={bad ? "error" : "warning"}>{restore.error.message}</p>}
      <ErrorText text={error} isAlert />
      <dl className="facts">
        <Fact title="By" text={restore.actor?.principal ?? "—"} />
        <Fact title="First write" text={timeText(restore.startTime)} />
        <Fact title="Ended" text={timeText(restore.endTime)} />
      </dl>
    </section>
  );
}

const REPORT_COLUMNS: readonly Column[] = [
  { title: "Verdict", width: "240px" },
  { title: "PV", width: "minmax(170px, 2fr)", className: "mono" },
  { title: "Stage", width: "50px", className: "right" },
  { title: "Before", width: "minmax(100px, 1fr)", className: "value right" },
  { title: "Sent", width: "minmax(100px, 1fr)", className: "value right" },
  { title: "Seen", width: "minmax(100px, 1fr)", className: "value right" },
  { title: "Explanation", width: "minmax(160px, 3fr)" },
];

/** Gravest first: what went wrong, what was written, what was left out, what was equal. */
function gravity(item: RestoreItem): number {
  if (item.mayStillFire) return 0;
  if (OPEN.has(item.verdict)) return 2;
  if (item.verdict === Verdict.VERIFIED) return 3;
  if (item.verdict === Verdict.SKIPPED) return 4;
  return item.verdict === Verdict.EQUAL_ALREADY ? 5 : 1;
}

const NO_ITEMS: readonly RestoreItem[] = [];

function Report({ restoreId }: { restoreId: string }) {
  const { client, pvs } = useSession();
  const asked = useAsked(restoreId, async (signal) => {
    const items: RestoreItem[] = [];
    for await (const response of client.restore.readRestore({ id: restoreId }, { signal }))
      joinRows(items, response.items, ["before", "target", "seen", "readback"]);
    return items.sort((a, b) => gravity(a) - gravity(b) || (a.name < b.name ? -1 : 1));
  });
  const draw = (item: RestoreItem, cells: HTMLElement[]) => {
    const display = setpointDisplay(pvs, item.number);
    const skip = item.verdict === Verdict.SKIPPED ? `: ${enumWords(SkipReason[item.skip])}` : "";
    setMark(cells[0]!, `${verdictShape(item.verdict)} ${enumWords(Verdict[item.verdict])}${skip}`, verdictLook(item.verdict));
    setCell(cells[1]!, item.name, "", item.name);
    setCell(cells[2]!, item.sendTime === undefined ? "" : String(item.stage));
    setCell(cells[3]!, valueText(item.before, display));
    setCell(cells[4]!, item.sendTime === undefined ? "" : valueText(item.target, display));
    setCell(cells[5]!, valueText(item.seen, display));
    const text = [item.mayStillFire ? "MAY STILL FIRE." : "", item.explanation, item.epicsStatus && item.epicsStatus !== "ECA_NORMAL" ? item.epicsStatus : ""]
      .filter(Boolean)
      .join(" ");
    setCell(cells[6]!, text, "", text);
  };
  return (
    <FilteredGrid
      label="Report of the restore"
      columns={REPORT_COLUMNS}
      rows={asked.answer ?? NO_ITEMS}
      textOf={(item) => `${item.name} ${enumWords(Verdict[item.verdict])}`}
      draw={draw}
      searchLabel="Search in the report"
      placeholder="Search name and verdict"
      error={asked.error}
      busy={asked.answer === undefined ? "Reading the report …" : ""}
      empty="Nothing passes the filter."
    />
  );
}
