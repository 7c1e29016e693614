/** Keys: who may come, with which roles; make one, revoke one. A secret is shown once, and kept nowhere. */
import { useState } from "react";
import { FieldForm, FormButtons } from "./fields";
import { useSession } from "./session";
import { ErrorText, ListTable, type ListColumn } from "./tables";
import { useActing, useAsked } from "./use_call";
import { timeText } from "./words";
import type { Grant, Key } from "../../gen/drey/access/v1/access_pb";

const MOST = 1000;
const DAY = 86_400;

function grantText({ role, selector }: Grant): string {
  if (selector === undefined) return role;
  const some = [...selector.names, ...selector.globs, ...selector.devices, ...selector.tags.map(({ group }) => group)];
  return `${role} for ${some.slice(0, 3).join(", ") || "some PVs"}${some.length > 3 ? " …" : ""}`;
}

const isAlive = (key: Key) =>
  key.revokeTime === undefined && (key.expireTime === undefined || Number(key.expireTime.seconds) * 1000 > Date.now());

export function KeysTab() {
  const { client, may } = useSession();
  const [showsDead, setShowsDead] = useState(false);
  const [makes, setMakes] = useState(false);
  const [asks, setAsks] = useState("");
  const { busy, error, act } = useActing();
  const asked = useAsked(`${showsDead}`, (signal) => client.access.listKeys({ pageSize: MOST, includeDead: showsDead }, { signal }), 5000);
  const columns: readonly ListColumn<Key>[] = [
    { title: "Name", cell: (key) => key.name },
    { title: "Begins with", cell: (key) => <span className="mono">{key.prefix}</span> },
    { title: "Grants", cell: (key) => key.grants.map(grantText).join("; ") },
    { title: "Made", cell: (key) => `${timeText(key.createTime)}${key.createdBy ? ` by ${key.createdBy}` : ""}` },
    { title: "Expires", cell: (key) => (key.expireTime === undefined ? "never" : timeText(key.expireTime)) },
    {
      title: "State",
      cell: (key) =>
        isAlive(key) ? (
          <span className="mark is-good">✓ in force</span>
        ) : (
          <span className="mark is-off">✖ {key.revokeTime === undefined ? "expired" : `revoked ${timeText(key.revokeTime)}`}</span>
        ),
    },
    {
      title: "Act",
      cell: (key) =>
        isAlive(key) &&
        (asks === key.id ? (
          <span className="bar">
            <button
              className="danger"
              autoFocus
              disabled={busy}
              onClick={() => act(async () => (await client.access.revokeKey({ id: key.id }), setAsks(""), asked.again()))}
            >
              Revoke {key.name} now
            </button>
            <button onClick={() => setAsks("")}>Not now</button>
          </span>
        ) : (
          <button disabled={busy || !may("access.keys.revoke")} aria-label={`Revoke ${key.name}`} onClick={() => setAsks(key.id)}>
            Revoke …
          </button>
        )),
    },
  ];
  return (
    <>
      <h1 className="sr">Keys</h1>
      <div className="bar">
        <button className="main" disabled={!may("access.keys.create")} onClick={() => setMakes(!makes)}>
          Make a key
        </button>
        <label>
          <input type="checkbox" checked={showsDead} onChange={(event) => setShowsDead(event.target.checked)} /> revoked and expired too
        </label>
      </div>
      {!may("access.keys.list") && <p className="warning">Your key may not handle keys.</p>}
      {makes && <KeyMaker onClose={() => setMakes(false)} onMade={asked.again} />}
      <ErrorText text={error} isAlert />
      <ListTable
        label="Keys by name"
        asked={asked}
        rows={asked.answer?.keys ?? []}
        columns={columns}
        idOf={(key) => key.id}
        empty="There are no keys."
        note={asked.answer?.nextPageToken && <p className="dim">The first {MOST} are shown.</p>}
      />
    </>
  );
}

function KeyMaker({ onClose, onMade }: { onClose: () => void; onMade: () => void }) {
  const { client } = useSession();
  const roles = useAsked("roles", (signal) => client.access.listRoles({}, { signal }));
  const [name, setName] = useState("");
  const [role, setRole] = useState("viewer");
  const [globs, setGlobs] = useState("");
  const [days, setDays] = useState("");
  const [secret, setSecret] = useState("");
  const { busy, refusal, act } = useActing();
  const make = () =>
    act(async () => {
      const life = Number(days);
      if (days !== "" && !(life > 0)) throw new Error("Days that it is good for: a number above 0, or nothing");
      const patterns = globs.split(/[\s,]+/).filter(Boolean);
      const answer = await client.access.createKey({
        name,
        grants: [{ role, ...(patterns.length > 0 ? { selector: { globs: patterns } } : {}) }],
        ...(days === "" ? {} : { lifetime: { seconds: BigInt(Math.round(life * DAY)) } }),
      });
      setSecret(answer.secret);
      onMade();
    });
  if (secret !== "")
    return (
      <section className="panel stack" aria-label="The new key">
        <p className="warning">▲ This is shown once: copy it now. Nobody can look it up later.</p>
        <p>
          {name}: <input readOnly autoFocus aria-label="Secret" className="mono" size={secret.length + 2} value={secret} onFocus={(event) => event.target.select()} />
        </p>
        <div className="bar">
          <button className="main" onClick={onClose}>
            I have it
          </button>
        </div>
      </section>
    );
  return (
    <FieldForm className="panel stack" label="Make a key" refusal={refusal} onSubmit={make}>
      <div className="bar">
        <label className="wide">
          Name <input autoFocus required placeholder="who or what will use it" value={name} onChange={(event) => setName(event.target.value)} />
        </label>
        <label>
          Role{" "}
          <select value={role} onChange={(event) => setRole(event.target.value)}>
            {(roles.answer?.roles ?? []).map((each) => (
              <option key={each.name}>{each.name}</option>
            ))}
          </select>
        </label>
        <label className="wide">
          Only for PVs <input placeholder="all, or QUAD:* BEND:*" value={globs} onChange={(event) => setGlobs(event.target.value)} />
        </label>
        <label>
          Days <input size={5} placeholder="ever" value={days} onChange={(event) => setDays(event.target.value.trim())} />
        </label>
      </div>
      <p className="dim">{roles.answer?.roles.find((each) => each.name === role)?.description}</p>
      <ErrorText text={roles.error} isAlert />
      <FormButtons busy={busy} isOff={name.trim() === ""} submit="Make it" submitting="Making …" onCancel={onClose} />
    </FieldForm>
  );
}
