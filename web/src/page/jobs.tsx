/** Jobs: what is worked on, by whom, how far; cancel. */
import { useState } from "react";
import { useSession } from "./session";
import { ErrorText, ListTable, type ListColumn } from "./tables";
import { useActing, useAsked } from "./use_call";
import { counted, enumWords, timeText } from "./words";
import { JobKind, JobState, type Job } from "../../gen/drey/job/v1/job_pb";

const MOST = 200;
const OPEN: ReadonlySet<JobState> = new Set([JobState.QUEUED, JobState.RUNNING]);

function StateMark({ job }: { job: Job }) {
  const words = enumWords(JobState[job.state]);
  if (job.state === JobState.SUCCEEDED) return <span className="mark is-good">✓ {words}</span>;
  if (OPEN.has(job.state)) return <span className="mark is-off">… {words}</span>;
  return <span className={`mark ${job.state === JobState.CANCELLED ? "is-minor" : "is-major"}`}>✖ {words}</span>;
}

function Progress({ job }: { job: Job }) {
  const text = job.total > 0n ? `${counted(job.done)} of ${counted(job.total)}` : "";
  if (job.state !== JobState.RUNNING) return <>{text}</>;
  return (
    <>
      <progress aria-label={`Progress of the job ${job.id}`} max={Math.max(1, Number(job.total))} value={Number(job.done)} /> {text} {job.phase}
    </>
  );
}

function Result({ job }: { job: Job }) {
  if (job.result.case === "snapshotId") return <a href={`#/snapshots/${job.result.value}`}>the snapshot</a>;
  if (job.result.case === "restoreId") return <a href={`#/restore/of/${job.result.value}`}>the restore</a>;
  if (job.result.case === "importSummary") {
    const { added, changed } = job.result.value;
    return <>{`${counted(added)} added, ${counted(changed)} changed`}</>;
  }
  return <>{job.error?.message}</>;
}

export function JobsTab() {
  const { client, may, who } = useSession();
  const [kind, setKind] = useState(JobKind.UNSPECIFIED);
  const [isOpenOnly, setOpenOnly] = useState(false);
  const { busy, error, act } = useActing();
  const asked = useAsked(
    `${kind} ${isOpenOnly}`,
    (signal) => client.job.listJobs({ kind, states: isOpenOnly ? [...OPEN] : [], pageSize: MOST }, { signal }),
    1000,
  );
  const mayCancel = (job: Job) =>
    may("job.jobs.cancel_any") || (may("job.jobs.cancel") && job.actor?.principal === who.principal);
  const columns: readonly ListColumn<Job>[] = [
    { title: "Made", cell: (job) => timeText(job.createTime) },
    { title: "Kind", cell: (job) => enumWords(JobKind[job.kind]) },
    { title: "By", cell: (job) => job.actor?.principal },
    { title: "State", cell: (job) => <StateMark job={job} /> },
    { title: "Progress", cell: (job) => <Progress job={job} /> },
    { title: "Result", cell: (job) => <Result job={job} /> },
    { title: "Tries", isNumber: true, cell: (job) => job.attempts },
    {
      title: "Act",
      cell: (job) =>
        OPEN.has(job.state) && (
          <button
            className="danger"
            disabled={busy || !mayCancel(job)}
            aria-label={`Cancel the job ${job.id}`}
            onClick={() => act(async () => (await client.job.cancelJob({ id: job.id, reason: "by the page" }), asked.again()))}
          >
            ■ Cancel
          </button>
        ),
    },
  ];
  return (
    <>
      <h1 className="sr">Jobs</h1>
      <div className="bar">
        <label>
          Kind{" "}
          <select value={kind} onChange={(event) => setKind(Number(event.target.value))}>
            <option value={JobKind.UNSPECIFIED}>any</option>
            {[JobKind.SNAPSHOT, JobKind.RESTORE, JobKind.IMPORT].map((each) => (
              <option key={each} value={each}>
                {enumWords(JobKind[each])}
              </option>
            ))}
          </select>
        </label>
        <label>
          <input type="checkbox" checked={isOpenOnly} onChange={(event) => setOpenOnly(event.target.checked)} /> not ended only
        </label>
        <span className="dim" role="status">
          {asked.answer !== undefined && asked.answer.totalSize > MOST ? `the newest ${MOST} of ${counted(asked.answer.totalSize)}` : ""}
        </span>
      </div>
      <ErrorText text={error} isAlert />
      <ListTable
        label="Jobs, newest first"
        asked={asked}
        rows={asked.answer?.jobs ?? []}
        columns={columns}
        idOf={(job) => job.id}
        empty={isOpenOnly ? "Nothing is being worked on." : "There have been no jobs yet."}
      />
    </>
  );
}
