/** Processes of the services: which version each is of, since when, and whether it can do what it is for. */
import { counted, plural, secondsOf, spanText, timeText } from "./words";
import type { ServiceInstance } from "../../gen/drey/system/v1/system_service_pb";

export function InstanceTable({ instances }: { instances: readonly ServiceInstance[] }) {
  const versionsOf = (service: string) => new Set(instances.filter((each) => each.service === service).map(({ version }) => version)).size;
  return (
    <section className="panel" aria-label="Instances">
      <h2>Instances</h2>
      <table className="plain">
        <thead>
          <tr>
            <th>Service</th>
            <th>Instance</th>
            <th>State</th>
            <th>Version</th>
            <th>Started</th>
            <th className="num">Last sign of life</th>
            <th>Queues</th>
          </tr>
        </thead>
        <tbody>
          {instances.map((instance) => (
            <tr key={`${instance.service} ${instance.name}`}>
              <td>{instance.service}</td>
              <td className="mono">{instance.name}</td>
              <td>
                <span className={`mark ${instance.serving ? "is-good" : "is-major"}`}>{instance.serving ? "✓ serves" : "✖ does not serve"}</span>
              </td>
              <td>
                {instance.version || "—"}{" "}
                {versionsOf(instance.service) > 1 && <span className="mark is-minor">▲ {plural(versionsOf(instance.service), "version")} at once</span>}
              </td>
              <td>{timeText(instance.startTime)}</td>
              <td className="num">{instance.age === undefined ? "—" : `${spanText(secondsOf(instance.age)!)} ago`}</td>
              <td>
                <Queues instance={instance} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {instances.length === 0 && <p className="empty">No instance gives a sign of life.</p>}
    </section>
  );
}

/** Those that wait or have dropped something; the others are empty. */
function Queues({ instance: { queues } }: { instance: ServiceInstance }) {
  const told = queues.filter(({ depth, dropped }) => depth > 0 || dropped > 0n);
  if (told.length === 0) return <span className="dim">{queues.length === 0 ? "none" : "empty"}</span>;
  return told.map(({ name, depth, bound, dropped }) => (
    <div key={name}>
      {name}: {counted(depth)} of {counted(bound)}
      {dropped > 0n && <span className="mark is-minor">▲ {counted(dropped)} dropped</span>}
    </div>
  ));
}
