import { Logger } from "effect"

/** Collects what is logged. */
export const logs = () => {
  const logged: Array<string> = []
  const logger = Logger.layer([Logger.make(({ message }) => void logged.push([message].flat().join(" ")))])
  return { logged, logger }
}
