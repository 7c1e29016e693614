/** Plots: of chosen PVs through the time since they were chosen, of a PV through snapshots, of the elements of an array. */
import { useEffect, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { clock, day } from "./words";

const DASHES: readonly number[][] = [[], [7, 4], [2, 3], [12, 3, 2, 3], [4, 4], [1, 2]];

const DAY = 86_400;

/** Times of day; with the day where more than one is shown. */
function timeTicks(plot: uPlot, ticks: readonly number[]): string[] {
  const { min = 0, max = 0 } = plot.scales.x!;
  return ticks.map((seconds) => {
    const date = new Date(seconds * 1000);
    return max! - min! > DAY ? `${day(date).slice(5)} ${clock(date).slice(0, 5)}` : clock(date);
  });
}

export interface PlotProps {
  readonly label: string;
  readonly series: readonly string[];
  /** The x axis is time, in seconds since 1970. */
  readonly isTime: boolean;
  /** A mark at each point: a line alone shows none that stands between two gaps. */
  readonly showsPoints?: boolean;
  /** Points, asked each half second: x, then one list for each of the series. */
  readonly points: () => uPlot.AlignedData;
}

export function Plot({ label, series, isTime, showsPoints = false, points }: PlotProps) {
  const host = useRef<HTMLDivElement>(null);
  const key = series.join("\n");
  const ask = useRef(points);
  ask.current = points;
  useEffect(() => {
    const element = host.current!;
    const style = getComputedStyle(document.documentElement);
    const color = (name: string) => style.getPropertyValue(name).trim();
    const axis = { stroke: color("--text"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line") } };
    const plot = new uPlot(
      {
        width: Math.max(100, element.clientWidth),
        height: Math.max(80, element.clientHeight),
        legend: { show: false },
        scales: { x: { time: isTime } },
        axes: [isTime ? { ...axis, values: timeTicks, space: 90 } : axis, { ...axis, size: 70 }],
        series: [
          {},
          ...series.map((name, index) => ({
            label: name,
            stroke: color(`--trace-${(index % 6) + 1}`),
            dash: DASHES[index % 6]!,
            width: 2,
            points: { show: showsPoints, size: 7, fill: color(`--trace-${(index % 6) + 1}`) },
            spanGaps: false,
          })),
        ],
      },
      ask.current(),
      element,
    );
    let drawn: uPlot.AlignedData | undefined;
    const drawAgain = () => {
      const next = ask.current();
      if (next !== drawn) plot.setData((drawn = next));
    };
    const timer = setInterval(drawAgain, 500);
    const sizes = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: element.clientHeight }));
    sizes.observe(element);
    return () => {
      clearInterval(timer);
      sizes.disconnect();
      plot.destroy();
    };
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [key, isTime]);
  return <div className="plot" ref={host} role="img" aria-label={label} />;
}
