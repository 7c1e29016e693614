/** IOCs: which answer, and whether they are asked at all. */
import { useState } from "react";
import { useSession } from "./session";
import { ErrorText } from "./tables";
import { useActing } from "./use_call";
import { counted, enumWords, plural, secondsOf, timeText } from "./words";
import { BreakerMode, BreakerState } from "../../gen/drey/common/v1/breaker_pb";
import type { IocStatus, SystemSummary } from "../../gen/drey/system/v1/system_service_pb";

const HELD: Record<number, string> = {
  [BreakerMode.AUTOMATIC]: "automatic",
  [BreakerMode.HELD_OPEN]: "held open: left alone",
  [BreakerMode.HELD_CLOSED]: "held closed: always asked",
};

function IocMark({ ioc }: { ioc: IocStatus }) {
  if (ioc.silentSince !== undefined) return <span className="mark is-major">✖ silent since {timeText(ioc.silentSince)}</span>;
  if (ioc.breakers.length > 0) return <span className="mark is-minor">▲ not asked by {plural(ioc.breakers.length, "part")}</span>;
  return <span className="mark is-good">✓ answers</span>;
}

export function IocTable({ summary }: { summary: SystemSummary }) {
  const { client, may } = useSession();
  const [asked, setAsked] = useState<{ ioc: string; mode: BreakerMode }>();
  const [reason, setReason] = useState("");
  const { busy, error, act } = useActing();
  const force = () =>
    act(async () => {
      await client.system.forceBreaker({ ...asked!, reason });
      setAsked(undefined);
      setReason("");
    });
  return (
    <section className="panel" aria-label="IOCs">
      <h2>IOCs</h2>
      {asked !== undefined && (
        <form
          className="warning bar"
          aria-label="Hold the breaker"
          onSubmit={(event) => {
            event.preventDefault();
            force();
          }}
        >
          <strong>
            {asked.ioc}: {HELD[asked.mode]}
          </strong>
          <label className="wide">
            Why <input autoFocus value={reason} onChange={(event) => setReason(event.target.value)} />
          </label>
          <button className="danger" disabled={busy}>
            Do it now
          </button>
          <button type="button" onClick={() => setAsked(undefined)}>
            Not now
          </button>
        </form>
      )}
      <ErrorText text={error} isAlert />
      <table className="plain">
        <thead>
          <tr>
            <th>IOC</th>
            <th>State</th>
            <th className="num">Channels</th>
            <th className="num">Connected</th>
            <th className="num">Unanswered</th>
            <th className="num">Echo</th>
            <th>Breaker</th>
          </tr>
        </thead>
        <tbody>
          {summary.iocs.map((ioc) => (
            <tr key={ioc.address}>
              <td className="mono">{ioc.address}</td>
              <td>
                <IocMark ioc={ioc} />
              </td>
              <td className="num">{counted(ioc.channels)}</td>
              <td className="num">{counted(ioc.connected)}</td>
              <td className="num">{counted(ioc.timeouts)}</td>
              <td className="num">{ioc.echo === undefined ? "—" : `${(1000 * secondsOf(ioc.echo)!).toFixed(1)} ms`}</td>
              <td>
                <select
                  aria-label={`Breaker of ${ioc.address}`}
                  disabled={busy || !may("system.breakers.force")}
                  value={ioc.forced?.mode || BreakerMode.AUTOMATIC}
                  onChange={(event) => setAsked({ ioc: ioc.address, mode: Number(event.target.value) })}
                >
                  {Object.entries(HELD).map(([mode, words]) => (
                    <option key={mode} value={mode}>
                      {words}
                    </option>
                  ))}
                </select>{" "}
                <span className="dim">{ioc.forced?.reason}</span>
                {ioc.breakers.map(({ instance, service, state, since }) => (
                  <div key={instance} className="dim">
                    {service} {instance}: {enumWords(BreakerState[state])} since {timeText(since)}
                  </div>
                ))}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {summary.iocs.length === 0 && <p className="dim">No IOC has been connected yet.</p>}
      {summary.iocCount > summary.iocs.length && <p className="dim">The worst {summary.iocs.length} of {counted(summary.iocCount)} are shown.</p>}
    </section>
  );
}
