import { Etcd } from "effect-etcd-lock"
import { suite } from "./etcd.ts"

suite("The etcd in memory", Etcd.layerMemory())
