/** Audit: who did what, with what there was before. */
import { useState } from "react";
import { useSession } from "./session";
import { Fact } from "./pvs";
import { ErrorText, ListTable, type ListColumn } from "./tables";
import { useActing, useAsked } from "./use_call";
import { timeText } from "./words";
import type { AuditEvent } from "../../gen/drey/audit/v1/audit_pb";

const PAGE = 200;

/** JSON with a line for each field; as it is where it is none. */
function pretty(json: string): string {
  try {
    return JSON.stringify(JSON.parse(json), undefined, 2);
  } catch {
    return json;
  }
}

export function AuditTab() {
  const { client, may } = useSession();
  const [principal, setPrincipal] = useState("");
  const [action, setAction] = useState("");
  const [target, setTarget] = useState("");
  const [pages, setPages] = useState<readonly string[]>([]);
  const [chosen, setChosen] = useState("");
  const pageToken = pages.at(-1) ?? "";
  const asked = useAsked(
    [principal, action, target, pageToken].join("\n"),
    (signal) => client.audit.listEvents({ principal, actionPrefix: action, target, pageSize: PAGE, pageToken }, { signal }),
    pageToken === "" ? 5000 : undefined,
  );
  const filters: readonly [string, string, (text: string) => void, string][] = [
    ["By whom", principal, setPrincipal, "anybody"],
    ["Act", action, setAction, "any, or restore."],
    ["Of what", target, setTarget, "anything, or snapshots/ID"],
  ];
  const events = asked.answer?.events ?? [];
  const columns: readonly ListColumn<AuditEvent>[] = [
    {
      title: "When",
      cell: (event) => (
        <button className="link" onClick={() => setChosen(event.sequence)}>
          {timeText(event.time)}
        </button>
      ),
    },
    { title: "Number", isNumber: true, cell: (event) => event.sequence },
    { title: "By", cell: (event) => `${event.actor?.principal ?? ""} (${event.actor?.roles.join(", ") ?? ""})` },
    { title: "From", cell: (event) => <span className="mono">{event.address || "—"}</span> },
    { title: "Act", cell: (event) => event.action },
    { title: "Of", cell: (event) => <span className="mono">{event.target}</span> },
  ];
  const shown = events.find((event) => event.sequence === chosen);
  return (
    <>
      <h1 className="sr">Audit</h1>
      <div className="bar">
        {filters.map(([title, text, set, placeholder], index) => (
          <label key={title} className="wide">
            {title}{" "}
            <input
              type={index === 0 ? "search" : "text"}
              placeholder={placeholder}
              value={text}
              onChange={(event) => (set(event.target.value.trim()), setPages([]))}
            />
          </label>
        ))}
        <VerifyChain />
      </div>
      {!may("audit.events.list") && <p className="warning">Your key may not read the audit trail.</p>}
      <div className="split">
        <div className="grow">
          <ListTable
            label="Acts, newest first"
            asked={asked}
            rows={events}
            columns={columns}
            idOf={(event) => event.sequence}
            chosen={chosen}
            onChoose={(event) => setChosen(event.sequence)}
            empty="No act passes the filters."
          />
          <div className="bar">
            <button disabled={pages.length === 0} onClick={() => setPages(pages.slice(0, -1))}>
              ← Newer
            </button>
            <button disabled={!asked.answer?.nextPageToken} onClick={() => setPages([...pages, asked.answer!.nextPageToken])}>
              Older →
            </button>
          </div>
        </div>
        {shown !== undefined && <ActDetails event={shown} onClose={() => setChosen("")} />}
      </div>
    </>
  );
}

function ActDetails({ event, onClose }: { event: AuditEvent; onClose: () => void }) {
  return (
    <aside className="panel side stack" aria-label="The chosen act">
      <div className="bar">
        <h2>{event.action}</h2>
        <span className="space" />
        <button aria-label="Close" onClick={onClose}>
          ×
        </button>
      </div>
      <dl className="facts">
        <Fact title="Number" text={event.sequence} />
        <Fact title="When" text={timeText(event.time)} />
        <Fact title="By" text={event.actor?.principal ?? "—"} />
        <Fact title="Roles" text={event.actor?.roles.join(", ") || "—"} />
        <Fact title="From" text={event.address || "—"} />
        <Fact title="Of" text={event.target || "—"} />
        <Fact title="Request" text={event.requestId || "—"} />
      </dl>
      <h3>Before</h3>
      <pre className="json">{pretty(event.beforeJson) || "nothing"}</pre>
      <h3>After</h3>
      <pre className="json">{pretty(event.afterJson) || "nothing"}</pre>
    </aside>
  );
}

function VerifyChain() {
  const { client, may } = useSession();
  const { busy, error, act } = useActing();
  const [told, setTold] = useState("");
  const verify = () =>
    act(async () => {
      const answer = await client.audit.verifyChain({});
      const [first] = answer.findings;
      setTold(
        first === undefined
          ? `✓ All ${answer.lastSequence} acts are as they were written`
          : `✖ ${answer.findings.length} findings, the first at ${first.sequence}: ${first.problem}`,
      );
    });
  return (
    <>
      <button disabled={busy || !may("audit.chain.verify")} onClick={verify}>
        {busy ? "Verifying …" : "Verify the record"}
      </button>
      <span role="status">{told}</span>
      <ErrorText text={error} isAlert />
    </>
  );
}
