// A store for @tus/server.  An upload has a folder, in a storage that all processes share.  A request writes pieces
// there, each to a file of its own; vali_blob confirms a piece together with the file's name.
import { AsyncLocalStorage } from 'node:async_hooks'
import { createReadStream } from 'node:fs'
import fs from 'node:fs/promises'
import { join } from 'node:path'
import { randomUUID } from 'node:crypto'
import { DataStore, Upload } from '@tus/server'
import { call, callAll } from './database.js'

const pieceSize = Number(process.env.PIECE_SIZE ?? 8 * 1024 * 1024)

// What store and locker know of the request that they work for: req, res, epoch, session
export const request = new AsyncLocalStorage()
export const refusal = (status_code, text) => Object.assign(new Error(text), { status_code, body: `${text}\n` })
export const isLive = ({ status }) => status === 'pending' || status === 'in_progress'
const isReady = (session) => isLive(session) && session.uploaded_bytes === session.total_size

// Makes the names in a folder survive a crash.
async function sync(folder) {
  const handle = await fs.open(folder)
  await handle.sync().finally(() => handle.close())
}

export class Store extends DataStore {
  extensions = ['creation', 'creation-with-upload', 'creation-defer-length', 'termination', 'expiration', 'concatenation']
  constructor(root, maxSize) { Object.assign(super(), { root, maxSize, marks: join(root, 'unrecorded') }) }
  folder(name) { return join(this.root, name) }
  file(name) { return join(this.root, name, 'file') }

  async create(upload) {
    const { partial = false } = request.getStore()
    const session = await call('start_upload', {
      upload_id: upload.id, path: `${partial ? 'partial' : 'whole'}/${upload.id}`, partial, metadata: upload.metadata,
      total_size: upload.size, size_limit: this.maxSize, provider_data: { folder: upload.id } })
    await fs.mkdir(this.folder(upload.id))
    await sync(this.root)
    await this.use(session)
    return upload
  }

  async getUpload(id) {
    const session = await call('get_upload', { upload_id: id })
    if (!session) throw refusal(404, 'there is no such upload')
    if (!isLive(session) && session.status !== 'complete') throw refusal(410, `the upload is ${session.status}`)
    const { method, headers } = request.getStore().req
    if (session.concatenated_from && method === 'PATCH') throw refusal(403, 'the upload is a final one')
    // A client declares the length once more if the process died that it had told it; @tus/server would refuse that.
    if (headers['upload-length'] === String(session.total_size)) delete headers['upload-length']
    await this.use(session)
    const { metadata } = session
    if (method === 'GET') { // @tus/server puts them into headers, which do not take all characters
      for (const name of ['filename', 'filetype']) metadata[name] &&= metadata[name].replace(/[^ -~]/g, '_')
    }
    return new Upload({ id, offset: session.uploaded_bytes, size: session.total_size ?? undefined,
      metadata: Object.keys(metadata).length ? metadata : undefined })
  }

  // Adds to the answer what @tus/server does not, and ends an upload that has all its bytes: the process that has
  // confirmed the last one may have died.
  async use(session) {
    const context = Object.assign(request.getStore(), { session })
    const parts = session.concatenated_from?.map((id) => `${context.path}/${id}`)
    if (session.partial || parts) context.res.setHeader('Upload-Concat', parts ? `final;${parts.join(' ')}` : 'partial')
    this.showExpiry(session)
    if (isReady(session) && !session.partial) await this.finish(session.upload_id)
  }

  showExpiry(session) {
    const { res } = request.getStore()
    res.removeHeader('Upload-Expires')
    if (isLive(session) && session.expires_at) res.setHeader('Upload-Expires', session.expires_at.toUTCString())
  }

  async declareUploadLength(id, size) {
    await this.use(await call('declare_upload_size', { upload_id: id, total_size: size }))
  }

  // Writes what comes.  If the client goes, or another one asks for the lock, the stream ends early.
  async write(stream, id, offset) {
    const { epoch = 0, session } = request.getStore()
    let piece
    try {
      // An error in the loop must not destroy the stream: @tus/server would hear of an AbortError instead.
      for await (const data of stream.iterator({ destroyOnReturn: false })) {
        const name = `${offset}-${epoch}`
        piece ??= { name, length: 0, handle: await fs.open(join(this.folder(id), name), 'wx') }
        await piece.handle.appendFile(data)
        piece.length += data.length
        if (piece.length >= pieceSize) [offset, piece] = [await this.confirm(id, offset, epoch, piece)]
      }
      if (piece) offset = await this.confirm(id, offset, epoch, piece)
    } finally {
      // What is not confirmed goes: a disk that is full would stay so.
      await piece?.handle.close().finally(() => piece.stays || fs.rm(join(this.folder(id), piece.name), { force: true }))
    }
    if (offset === session.total_size && !session.partial) await this.finish(id)
    return offset
  }

  // Bytes first, confirmation second.  Returns where to go on.
  async confirm(id, offset, epoch, piece) {
    await piece.handle.sync()
    await piece.handle.close()
    await sync(this.folder(id))
    const result = await call('try_advance_upload', {
      upload_id: id, chunk_offset: offset, chunk_length: piece.length, etag: piece.name, lease_epoch: epoch || null
    }).catch((error) => {
      piece.stays = /^(08|57|XX)/.test(error.code) // with these it may be confirmed, and the answer lost
      throw error
    })
    piece.stays = result.outcome === 'advanced' || result.outcome === 'replaced'
    if (result.outcome !== 'advanced') {
      throw Object.assign(new Error(`the chunk at ${offset}: ${result.outcome}`), { code: result.outcome })
    }
    this.showExpiry(result)
    return result.uploaded_bytes
  }

  // Ends an upload: only when its file stands, the pieces go, and only then it is complete.
  async finish(id) {
    if (!await fs.access(this.file(id)).then(() => true, () => false)) {
      await fs.rename(await this.assemble([id]), this.file(id))
    }
    await sync(this.folder(id))
    for (const name of await fs.readdir(this.folder(id))) {
      if (name !== 'file') await fs.rm(join(this.folder(id), name), { force: true })
    }
    await call('complete_upload', { upload_id: id, result: { file: this.file(id) } })
    request.getStore().res.removeHeader('Upload-Expires')
  }

  // Puts the pieces of uploads together.  Returns a file that the caller puts into its place.
  async assemble(ids) {
    const draft = join(this.folder(ids[0]), `draft-${randomUUID()}`)
    const handle = await fs.open(draft, 'wx')
    try {
      for (const part of ids) {
        for (let after = null, pieces; (pieces = await callAll('list_parts', { upload_id: part, after_offset: after })).length > 0;) {
          for (const { etag, chunk_offset } of pieces) {
            after = chunk_offset
            for await (const data of createReadStream(join(this.folder(part), etag))) await handle.appendFile(data)
          }
        }
      }
      await handle.sync()
    } catch (error) {
      await fs.rm(draft, { force: true }) // as in write()
      throw error
    } finally {
      await handle.close()
    }
    return draft
  }

  // Makes one upload of partial ones.  The same list gives the same upload, if the client has to ask again.
  async concatenate(id, ids, metadata) {
    if (await call('get_upload', { upload_id: id })) return
    const sessions = await callAll('get_uploads', { upload_ids: ids })
    if (sessions.length < ids.length) throw refusal(404, 'there is no such partial upload')
    if (!sessions.every((session) => session.partial)) throw refusal(400, 'an upload is not partial')
    if (!sessions.every(isReady)) throw refusal(409, 'a partial upload is not ready')
    if (sessions.reduce((sum, { total_size }) => sum + total_size, 0) > this.maxSize) throw refusal(413, 'too large')
    const draft = await this.assemble(ids)
    // No other attempt uses this folder.  As long as it has a mark, the file in it may be without a session.
    const folder = `${id}.${randomUUID()}`
    await fs.mkdir(join(this.marks, folder), { recursive: true })
    await sync(this.marks)
    await fs.mkdir(this.folder(folder))
    await fs.rename(draft, this.file(folder))
    await sync(this.folder(folder))
    await sync(this.root)
    await call('concatenate_uploads', { upload_id: id, upload_ids: ids, path: `whole/${id}`, metadata,
      provider_data: { folder }, result: { file: this.file(folder) } })
    await fs.rm(join(this.marks, folder), { recursive: true, force: true })
  }

  async read(id) {
    const folder = request.getStore().session.provider_data?.folder ?? id
    const handle = await fs.open(this.file(folder)).catch(() => { throw refusal(404, 'there is no file yet') })
    return handle.createReadStream()
  }

  async remove(id) {
    const { delete_upload: deleted } = await call('delete_upload', { upload_id: id, reclaim_complete: true })
    if (!deleted) throw refusal(404, 'there is no such upload')
  }
}
