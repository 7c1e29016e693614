/** Plots, whose library is loaded when the first is shown, and what their lines mean. */
import { lazy, Suspense, type ReactNode } from "react";
import type { PlotProps } from "./plot";

const LoadedPlot = lazy(async () => ({ default: (await import("./plot")).Plot }));

export function Plot(props: PlotProps) {
  return (
    <Suspense fallback={<p>Loading …</p>}>
      <LoadedPlot {...props} />
    </Suspense>
  );
}

/** The lines of a plot with their names, in its order; `action`: beside a name. */
export function Legend({ names, action }: { names: readonly string[]; action?: (index: number) => ReactNode }) {
  return (
    <ul className="legend">
      {names.map((name, index) => (
        <li key={name} className={`c${index % 6}`}>
          <span className="line" />
          <span className="mono">{name}</span> {action?.(index)}
        </li>
      ))}
    </ul>
  );
}
