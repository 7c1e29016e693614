/** Overview: how the whole does, in words, and what to do. */
import { useEffect, useState } from "react";
import { JobState } from "../../gen/drey/job/v1/job_pb";
import { RestoreState, type Restore } from "../../gen/drey/restore/v1/restore_pb";
import { FindingLevel, PartState, type Finding, type SystemSummary } from "../../gen/drey/system/v1/system_service_pb";
import { InstanceTable } from "./instances";
import { IocTable } from "./iocs";
import { useSession } from "./session";
import { useAsked } from "./use_call";
import { counted, enumWords, errorText, plural, secondsOf, timeText } from "./words";

/** Newest summary; follows the stream and opens it again. */
function useSummary() {
  const { client } = useSession();
  const [summary, setSummary] = useState<SystemSummary>();
  const [error, setError] = useState("");
  useEffect(() => {
    const stop = new AbortController();
    const follow = async () => {
      while (!stop.signal.aborted) {
        try {
          for await (const response of client.system.watchSystemSummary({}, { signal: stop.signal })) {
            setSummary(response.summary);
            setError("");
          }
        } catch (reason) {
          if (!stop.signal.aborted) setError(errorText(reason));
        }
        await new Promise((resolve) => setTimeout(resolve, 1000));
      }
    };
    void follow();
    return () => stop.abort();
  }, [client]);
  return { summary, error };
}

const LEVELS: Record<number, { word: string; look: string }> = {
  [FindingLevel.INFO]: { word: "ⓘ info", look: "is-off" },
  [FindingLevel.WARNING]: { word: "▲ warning", look: "is-minor" },
  [FindingLevel.ERROR]: { word: "✖ error", look: "is-major" },
};

export function OverviewTab() {
  const { summary, error } = useSummary();
  const { client, pvs } = useSession();
  const running = useAsked(
    "restores",
    (signal) => client.restore.listRestores({ states: [...UNDER_WAY], pageSize: 20 }, { signal }),
    2000,
  );
  const jobs = useAsked(
    "jobs",
    (signal) => client.job.listJobs({ states: [JobState.QUEUED, JobState.RUNNING], pageSize: 20 }, { signal }),
    2000,
  );
  if (summary === undefined) return error === "" ? <p>Asking …</p> : <p className="error">{error}</p>;
  const total = (get: (shard: SystemSummary["shards"][number]) => number) =>
    summary.shards.reduce((sum, shard) => sum + get(shard), 0);
  const bad = summary.findings.filter(({ level }) => level >= FindingLevel.WARNING).length;
  return (
    <div className="stack">
      <h1 className="sr">Overview</h1>
      {error !== "" && <p className="error">What is shown is of {timeText(summary.time)}: {error}</p>}
      <section className={summary.healthy && bad === 0 ? "good" : summary.healthy ? "warning" : "error"} aria-label="Health">
        <strong>
          {summary.healthy && bad === 0
            ? "✓ All parts work."
            : summary.healthy
              ? `▲ All that is needed works; ${plural(bad, "thing")} should be looked at.`
              : "✖ Something that is needed does not work."}
        </strong>
      </section>
      <div className="cards">
        <Card title="PVs" text={counted(summary.pvs)} />
        <Card title={`of ${counted(summary.channels)} channels connected`} text={counted(total((s) => s.connected))} />
        <Card title="in alarm" text={counted(total((s) => s.inAlarm))} />
        <Card title="updates a second" text={counted(Math.round(total((s) => s.updatesPerS)))} />
        <Card title="watching now" text={counted(summary.watchers)} />
        <Card title="jobs open" text={counted(summary.openJobs)} />
      </div>
      {summary.findings.length > 0 && (
        <section className="panel">
          <h2>What to look at</h2>
          <table className="plain">
            <thead>
              <tr>
                <th>Level</th>
                <th>What is so</th>
                <th>What to do</th>
                <th>Since</th>
              </tr>
            </thead>
            <tbody>
              {summary.findings.map((finding) => (
                <FindingRow key={`${finding.code} ${finding.subject.case} ${finding.subject.value}`} finding={finding} />
              ))}
            </tbody>
          </table>
        </section>
      )}
      <section className="panel">
        <h2>Restores under way</h2>
        {running.error !== "" && <p className="error">{running.error}</p>}
        {running.answer?.restores.length === 0 && <p className="dim">Nobody restores anything now.</p>}
        {running.answer?.restores.map((restore) => <RestoreLine key={restore.id} restore={restore} />)}
      </section>
      {(jobs.answer?.jobs.length ?? 0) > 0 && (
        <section className="panel">
          <h2>Jobs under way</h2>
          {jobs.answer!.jobs.map((job) => (
            <p key={job.id}>
              {enumWords(JobState[job.state])} · {job.phase || "waiting"} · {counted(job.done)} of {counted(job.total)} · asked for by{" "}
              {job.actor?.principal} at {timeText(job.createTime)}
            </p>
          ))}
        </section>
      )}
      {summary.signsLostSince !== undefined && (
        <p className="error">
          IOCs, instances and standbys are unknown since {timeText(summary.signsLostSince)}: no signs of life come.
        </p>
      )}
      <IocTable summary={summary} />
      <InstanceTable instances={summary.instances} />
      <div className="split">
        <section className="panel grow">
          <h2>Shards</h2>
          <table className="plain">
            <thead>
              <tr>
                <th>Shard</th>
                <th>Values</th>
                <th className="num">Channels</th>
                <th className="num">Connected</th>
                <th className="num">Lost</th>
                <th className="num">Never found</th>
                <th className="num">In alarm</th>
                <th className="num">Updates/s</th>
                <th>Owner</th>
              </tr>
            </thead>
            <tbody>
              {summary.shards.map((shard) => (
                <tr key={shard.state?.shard ?? -1}>
                  <td>{shard.state?.shard}</td>
                  <td>
                    <span className={`mark ${shard.state?.fresh ? "is-good" : "is-major"}`}>
                      {shard.state?.fresh ? "✓ fresh" : "◌ stale"}
                    </span>
                  </td>
                  <td className="num">{counted(shard.channels)}</td>
                  <td className="num">{counted(shard.connected)}</td>
                  <td className="num">{counted(shard.disconnected)}</td>
                  <td className="num">{counted(shard.neverConnected)}</td>
                  <td className="num">{counted(shard.inAlarm)}</td>
                  <td className="num">{counted(Math.round(shard.updatesPerS))}</td>
                  <td className="mono">{shard.owner || "nobody"}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </section>
        <section className="panel">
          <h2>Parts</h2>
          <table className="plain">
            <tbody>
              {summary.parts.map((part) => (
                <tr key={part.name}>
                  <td>{part.name}</td>
                  <td>
                    <span className={`mark ${part.state === PartState.UP ? "is-good" : "is-major"}`}>
                      {part.state === PartState.UP ? "✓ up" : "✖ down"}
                    </span>
                  </td>
                  <td className="num dim">{part.latency === undefined ? "" : `${(1000 * secondsOf(part.latency)!).toFixed(1)} ms`}</td>
                  <td className="dim">{part.detail}</td>
                </tr>
              ))}
            </tbody>
          </table>
          <p className="dim">
            Drey {summary.version}. This page has gone on {plural(pvs.watch.resumed, "time")} after a cut.
          </p>
        </section>
      </div>
    </div>
  );
}

const UNDER_WAY: ReadonlySet<RestoreState> = new Set([
  RestoreState.WAITING,
  RestoreState.WRITING,
  RestoreState.VERIFYING,
  RestoreState.PAUSED,
]);

function Card({ title, text }: { title: string; text: string }) {
  return (
    <div className="card">
      <b>{text}</b>
      <span className="dim">{title}</span>
    </div>
  );
}

function FindingRow({ finding }: { finding: Finding }) {
  const level = LEVELS[finding.level] ?? LEVELS[FindingLevel.INFO]!;
  return (
    <tr>
      <td>
        <span className={`mark ${level.look}`}>{level.word}</span>
      </td>
      <td>
        {finding.text}
        {finding.pvs.some((name) => !finding.text.includes(name)) && <div className="mono dim">{finding.pvs.join(", ")}</div>}
      </td>
      <td>{finding.remedy}</td>
      <td>{timeText(finding.since)}</td>
    </tr>
  );
}

function RestoreLine({ restore }: { restore: Restore }) {
  return (
    <p>
      <a href={`#/restore/${restore.planId}`}>{enumWords(RestoreState[restore.state])}</a> · by {restore.actor?.principal} since{" "}
      {timeText(restore.createTime)} {restore.comment && <>· {restore.comment}</>}
    </p>
  );
}
