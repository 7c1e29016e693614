/** Policies: how restores treat the PVs of a device or of a tag. */
import { useState } from "react";
import { EditedEnd, useEdited } from "./edited";
import { Field, FieldForm, FormButtons, TextField } from "./fields";
import { policyDraftOf, policyOf, type PolicyDraft } from "./policy_draft";
import { PolicyFields } from "./policy_fields";
import { policyParts } from "./policy_words";
import { tagOf, tagText } from "./pv_draft";
import { Fact } from "./pvs";
import { useSession } from "./session";
import { ErrorText, ListTable, type ListColumn } from "./tables";
import { useActing, useAsked } from "./use_call";
import { counted, plural, timeText } from "./words";
import type { DefaultPolicy } from "../../gen/drey/policy/v1/policy_pb";

const MOST = 1000;
const NEW = "new";

function subjectText({ subject }: DefaultPolicy): string {
  return subject.case === "tag" ? `tag ${tagText(subject.value)}` : `device ${subject.value ?? "?"}`;
}

export function PoliciesTab() {
  const { client, may } = useSession();
  const [search, setSearch] = useState("");
  const [chosen, setChosen] = useState("");
  const asked = useAsked(search, (signal) => client.policy.listPolicies({ search, pageSize: MOST }, { signal }), 10_000);
  const policies = asked.answer?.policies ?? [];
  const shown = policies.find(({ id }) => id === chosen);
  const done = (id: string) => {
    setChosen(id);
    asked.again();
  };
  const columns: readonly ListColumn<DefaultPolicy>[] = [
    {
      title: "Of the PVs of",
      cell: (policy) => (
        <button className="link" onClick={() => setChosen(policy.id)}>
          {subjectText(policy)}
        </button>
      ),
    },
    { title: "What it says", cell: ({ policy }) => policyParts(policy).map(({ title, text }) => `${title} ${text}`).join("; ") },
    { title: "PVs", isNumber: true, cell: ({ pvCount }) => counted(pvCount) },
    { title: "Why", cell: ({ comment }) => comment },
    { title: "Set by", cell: ({ actor }) => actor?.principal },
    { title: "Last changed", cell: ({ updateTime }) => timeText(updateTime) },
  ];
  return (
    <>
      <h1 className="sr">Policies</h1>
      <div className="bar">
        <input
          type="search"
          aria-label="Search device, tag, comment"
          placeholder="Search device, tag, comment   ( / )"
          value={search}
          onChange={(event) => setSearch(event.target.value)}
        />
        <button
          disabled={!may("policy.policies.create")}
          title={may("policy.policies.create") ? "" : "Your key may not set policies: it takes the role editor"}
          onClick={() => setChosen(NEW)}
        >
          Set a policy …
        </button>
      </div>
      <p className="dim">
        Of each part of a policy the first that says something counts: the PV itself, its tags (the strictest of them), its device, Drey. What holds for a PV in the
        end stands in its details, where what it says itself is edited: <a href="#/pvs">PVs</a>.
      </p>
      <div className="split">
        <div className="grow">
          <ListTable
            label="Policies of devices and tags"
            asked={asked}
            rows={policies}
            columns={columns}
            idOf={(policy) => policy.id}
            chosen={chosen}
            onChoose={(policy) => setChosen(policy.id)}
            empty={search ? "No policy passes the search." : "No device and no tag has a policy: what PVs say themselves counts, and Drey's own."}
            note={asked.answer?.nextPageToken && <p className="dim">The first {MOST} are shown. Search for others.</p>}
          />
        </div>
        {chosen === NEW && (
          <aside className="panel side stack" aria-label="A new policy">
            <h2>A new policy</h2>
            <NewPolicy onClose={() => setChosen("")} onMade={done} />
          </aside>
        )}
        {shown !== undefined && <PolicyDetails key={shown.id} policy={shown} onClose={() => setChosen("")} onChanged={done} />}
      </div>
    </>
  );
}

interface DetailsProps {
  readonly policy: DefaultPolicy;
  readonly onClose: () => void;
  /** With the id of what is to be shown then. */
  readonly onChanged: (id: string) => void;
}

function PolicyDetails({ policy, onClose, onChanged }: DetailsProps) {
  const { client, may } = useSession();
  const [edits, setEdits] = useState(false);
  const [asksDelete, setAsksDelete] = useState(false);
  const { busy, error, act } = useActing();
  const remove = () =>
    act(async () => {
      await client.policy.deletePolicy({ id: policy.id, etag: policy.etag });
      onChanged("");
    });
  return (
    <aside className="panel side stack" aria-label="The chosen policy">
      <div className="bar">
        <h2>{subjectText(policy)}</h2>
        <span className="space" />
        <button aria-label="Close" onClick={onClose}>
          ×
        </button>
      </div>
      {edits ? (
        <PolicyEdit
          first={policy}
          onClose={() => {
            setEdits(false);
            onChanged(policy.id);
          }}
        />
      ) : (
        <>
          <dl className="facts">
            {policyParts(policy.policy).map(({ field, title, text }) => (
              <Fact key={field} title={title} text={text} />
            ))}
            <Fact title="Why" text={policy.comment || "—"} />
            <Fact title="Made" text={timeText(policy.createTime)} />
          </dl>
          <div className="bar">
            <button disabled={!may("policy.policies.update")} onClick={() => setEdits(true)}>
              Edit …
            </button>
            {asksDelete ? (
              <button className="danger" autoFocus disabled={busy} onClick={remove}>
                Delete it now, for {plural(policy.pvCount, "PV")}
              </button>
            ) : (
              <button disabled={!may("policy.policies.delete")} onClick={() => setAsksDelete(true)}>
                Delete …
              </button>
            )}
          </div>
          <ErrorText text={error} isAlert />
        </>
      )}
    </aside>
  );
}

type Draft = PolicyDraft & { readonly comment: string };

const draftOf = ({ policy, comment }: DefaultPolicy): Draft => ({ ...policyDraftOf(policy), comment });

const LEGEND = "What it says; empty: nothing of that";

function PolicyEdit({ first, onClose }: { first: DefaultPolicy; onClose: () => void }) {
  const { client } = useSession();
  const edited = useEdited(first, draftOf, async ({ id }) => (await client.policy.getPolicy({ id })).policy!);
  const { thing, draft, set, refusal, act } = edited;
  const save = () =>
    act(async () => {
      const { id, etag } = thing;
      const policy = { id, etag, policy: policyOf(draft, "policy.policy"), comment: draft.comment };
      await client.policy.updatePolicy({ policy, updateMask: { paths: ["policy", "comment"] } });
      onClose();
    });
  return (
    <FieldForm label={`Edit the policy of the ${subjectText(first)}`} refusal={refusal} onSubmit={save}>
      <PolicyFields draft={draft} onChange={set} path="policy.policy" legend={LEGEND} />
      <TextField label="Why" path="policy.comment" isWide lines={2} value={draft.comment} onValue={(text) => set("comment", text)} />
      <EditedEnd edited={edited} what="policy" onClose={onClose} />
    </FieldForm>
  );
}

function NewPolicy({ onClose, onMade }: { onClose: () => void; onMade: (id: string) => void }) {
  const { client, pvs } = useSession();
  const [kind, setKind] = useState<"device" | "tag">("device");
  const [subject, setSubject] = useState("");
  const [draft, setDraft] = useState<Draft>({ ...policyDraftOf(undefined), comment: "" });
  const { busy, refusal, act } = useActing();
  const set = (field: keyof Draft, value: string) => setDraft((before) => ({ ...before, [field]: value }));
  const make = () =>
    act(async () => {
      const answer = await client.policy.createPolicy({
        policy: {
          subject: kind === "device" ? { case: "device", value: subject.trim() } : { case: "tag", value: tagOf(subject, "policy.tag") },
          policy: policyOf(draft, "policy.policy"),
          comment: draft.comment,
        },
      });
      onMade(answer.policy!.id);
    });
  return (
    <FieldForm label="Set a policy" refusal={refusal} onSubmit={make}>
      <div className="bar">
        <Field label="Of the PVs of a" path="policy.subject">
          {(aria) => (
            <select autoFocus value={kind} onChange={(event) => setKind(event.target.value as typeof kind)} {...aria}>
              <option value="device">device</option>
              <option value="tag">tag</option>
            </select>
          )}
        </Field>
        {kind === "device" ? (
          <TextField label="Device" path="policy.device" isWide choices={pvs.devices} value={subject} onValue={setSubject} />
        ) : (
          <TextField label="Tag" path="policy.tag" isWide choices={pvs.tags} placeholder="Group: Tag" value={subject} onValue={setSubject} />
        )}
      </div>
      <PolicyFields draft={draft} onChange={set} path="policy.policy" legend={LEGEND} />
      <TextField label="Why" path="policy.comment" isWide lines={2} value={draft.comment} onValue={(text) => set("comment", text)} />
      <FormButtons busy={busy} submit="Set it" submitting="Setting …" onCancel={onClose} />
    </FieldForm>
  );
}
