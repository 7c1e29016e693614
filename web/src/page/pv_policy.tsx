/** How a restore treats one PV in the end, and who says so. */
import { policyParts, sourceWords } from "./policy_words";
import { useSession } from "./session";
import { ErrorText } from "./tables";
import { useAsked } from "./use_call";

export function EffectivePolicy({ pvId, etag }: { pvId: string; etag: string }) {
  const { client } = useSession();
  const asked = useAsked(`${pvId} ${etag}`, (signal) => client.catalog.getEffectivePolicy({ id: pvId }, { signal }));
  if (asked.answer === undefined) return asked.error === "" ? <p>Asking …</p> : <ErrorText text={asked.error} isAlert />;
  const { policy, sources, contradictions } = asked.answer;
  return (
    <section aria-label="How a restore treats it">
      {contradictions.map((each) => (
        <p key={each} className="warning">
          ▲ {each}
        </p>
      ))}
      <table className="plain">
        <thead>
          <tr>
            <th>Restores</th>
            <th>Value</th>
            <th>Said by</th>
          </tr>
        </thead>
        <tbody>
          {policyParts(policy).map(({ field, title, text }) => (
            <tr key={field}>
              <td>{title}</td>
              <td>{text}</td>
              <td>{sources.filter(({ policyField }) => policyField === field).map(sourceWords).join(", ")}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
