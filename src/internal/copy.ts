/** What tells this copy of the package from others in the process, as an app and a library may bring them. */

/** The key of a mark on what this copy has made. */
export const copy: unique symbol = Symbol("effect-etcd-lock")

/** Refuses what another copy has made. Each of them counts the keys of a lease by itself, so two could take one key for theirs. */
export const refuseOther = (what: "session" | "lease", made: object): void => {
  if (copy in made) return
  throw new Error(
    `The ${what} is of another copy of effect-etcd-lock in this process. Copies cannot work together: see them by ` +
      "`npm ls effect-etcd-lock`, and have one version installed once, outside of bundles that share a process."
  )
}
