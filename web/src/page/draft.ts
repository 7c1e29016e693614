/** What a person edits, as texts by field: what of it changed, and what came meanwhile from somebody else. */

export type Draft = Readonly<Record<string, string>>;

export const changedFields = <D extends Draft>(base: D, draft: D): (keyof D & string)[] => Object.keys(base).filter((field) => base[field] !== draft[field]);

/** What was typed, over what is there by now; and the fields that both have changed, each otherwise. */
export function mergeDraft<D extends Draft>(base: D, typed: D, now: D): { draft: D; conflicts: readonly (keyof D & string)[] } {
  const mine = changedFields(base, typed);
  const draft = { ...now, ...Object.fromEntries(mine.map((field) => [field, typed[field]])) };
  return { draft, conflicts: mine.filter((field) => now[field] !== base[field] && now[field] !== typed[field]) };
}
