import * as World from "../support/World.ts"
import { suite } from "./batch.ts"

suite("the etcd in memory", World.makeMemory)
