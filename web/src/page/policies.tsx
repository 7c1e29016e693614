/** Policies: how restores treat the PVs of a device or of a tag. */
import { useState } from "react";
import { policyParts } from "./policy_words";
import { useSession } from "./session";
import { ListTable, type ListColumn } from "./tables";
import { useAsked } from "./use_call";
import { counted, timeText } from "./words";
import type { DefaultPolicy } from "../../gen/drey/policy/v1/policy_pb";

const MOST = 1000;

function subjectText({ subject }: DefaultPolicy): string {
  if (subject.case === "tag") return `tag ${subject.value.group}: ${subject.value.tag}`;
  return `device ${subject.value ?? "?"}`;
}

const COLUMNS: readonly ListColumn<DefaultPolicy>[] = [
  { title: "Of the PVs of", cell: subjectText },
  { title: "What it says", cell: ({ policy }) => policyParts(policy).map(({ title, text }) => `${title} ${text}`).join("; ") },
  { title: "PVs", isNumber: true, cell: ({ pvCount }) => counted(pvCount) },
  { title: "Why", cell: ({ comment }) => comment },
  { title: "Set by", cell: ({ actor }) => actor?.principal },
  { title: "Last changed", cell: ({ updateTime }) => timeText(updateTime) },
];

export function PoliciesTab() {
  const { client } = useSession();
  const [search, setSearch] = useState("");
  const asked = useAsked(search, (signal) => client.policy.listPolicies({ search, pageSize: MOST }, { signal }), 10_000);
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
      </div>
      <p className="dim">
        Of each part of a policy the first that says something counts: the PV itself, its tags (the strictest of them), its device, Drey. What holds for a PV in the
        end stands in its details: <a href="#/pvs">PVs</a>.
      </p>
      <ListTable
        label="Policies of devices and tags"
        asked={asked}
        rows={asked.answer?.policies ?? []}
        columns={COLUMNS}
        idOf={(policy) => policy.id}
        empty={search ? "No policy passes the search." : "No device and no tag has a policy: what PVs say themselves counts, and Drey's own."}
        note={asked.answer?.nextPageToken && <p className="dim">The first {MOST} are shown. Search for others.</p>}
      />
    </>
  );
}
